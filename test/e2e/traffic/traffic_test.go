// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"net"
	"testing"
	"time"
)

// TestWhatIsSentArrives: the program ends well only when every byte has gone
// there and back; what it prints is for others.
func TestWhatIsSentArrives(t *testing.T) {
	port := freePort(t)
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- serve(ctx, port) }()
	to := fmt.Sprintf("127.0.0.1:%d", port)
	for _, s := range []sending{
		{to: to, bytes: headLen, back: 0, times: 1},
		{to: to, bytes: 300_000, back: 200_000, times: 3},
		{to: to, bytes: 1000, back: 10, times: 5, every: time.Millisecond},
		{to: to, bytes: 1000, back: 1400, times: 5, udp: true},
	} {
		s.patience = 30 * time.Second
		if err := send(ctx, s); err != nil {
			t.Errorf("%+v: %v", s, err)
		}
	}
	if err := shake(ctx, to); err != nil {
		t.Error(err)
	}
	if err := send(ctx, sending{to: to, bytes: headLen - 1}); err == nil {
		t.Error("a frame shorter than its head was sent")
	}
	stop()
	if err := <-served; err != nil {
		t.Error(err)
	}
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}
