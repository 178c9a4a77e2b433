// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"
)

// settle is how long a standalone line counts before its first answer, so that
// there is something to say.
const settle = 500 * time.Millisecond

// Standalone runs an agent inside the calling process, without listeners, and
// returns a connection to it; close ends both.
func Standalone(ctx context.Context, cfg Config) (conn *grpc.ClientConn, closer func() error, err error) {
	a, err := Open(cfg)
	if err != nil {
		return nil, nil, err
	}
	if err := a.tap.Sync(); err != nil {
		return nil, nil, errors.Join(err, a.close())
	}
	lis := bufconn.Listen(64 << 10)
	conn, err = grpc.NewClient("passthrough:///standalone",
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return lis.DialContext(ctx) }),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
	)
	if err != nil {
		return nil, nil, errors.Join(err, a.close())
	}
	// The caller's ctx may end before its last words are read.
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan error, 1)
	go func() { done <- a.run(ctx, &listeners{grpc: []net.Listener{lis}}) }()
	time.Sleep(settle)
	return conn, func() error {
		err := conn.Close()
		cancel()
		return errors.Join(err, <-done)
	}, nil
}
