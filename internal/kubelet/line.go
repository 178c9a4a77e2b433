// SPDX-License-Identifier: Apache-2.0

package kubelet

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"syscall"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	podresources "k8s.io/kubelet/pkg/apis/podresources/v1"
)

const (
	// An answer of as many pods as a node may have, with hundreds of devices each, is
	// a tenth of that.
	maxAnswer = 16 << 20
	maxHeader = 64 << 10
	maxWords  = 200
)

// line is a connection to the kubelet, made anew whenever it fails.
type line struct {
	Settings
	socket net.Conn
	conn   *grpc.ClientConn
}

// ask has the answer by the deadline, or an error that tells what to try.
func (l *line) ask(ctx context.Context) ([]Holding, uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, l.Deadline)
	defer cancel()
	// That it was restarted since it was last asked is no failure.
	again := l.conn != nil
	answer, err := l.list(ctx)
	if again && status.Code(err) == codes.Unavailable {
		answer, err = l.list(ctx)
	}
	if err != nil {
		return nil, 0, l.explain(err)
	}
	list, lost := holdings(answer)
	return list, lost, nil
}

func (l *line) list(ctx context.Context) (*podresources.ListPodResourcesResponse, error) {
	if err := l.connect(ctx); err != nil {
		return nil, err
	}
	answer, err := podresources.NewPodResourcesListerClient(l.conn).List(ctx, &podresources.ListPodResourcesRequest{})
	if err != nil {
		l.hangUp()
	}
	return answer, err
}

// connect is done here and not by the library, which would wait longer and longer
// before it tries again, and keep to itself why it could not.
func (l *line) connect(ctx context.Context) error {
	if l.conn != nil {
		return nil
	}
	socket, err := new(net.Dialer).DialContext(ctx, "unix", l.Socket)
	if err != nil {
		return err
	}
	given := make(chan net.Conn, 1)
	given <- socket
	conn, err := grpc.NewClient("passthrough:///kubelet",
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) {
			select {
			case c := <-given:
				return c, nil
			default:
				return nil, errors.New("the kubelet has closed the connection")
			}
		}),
		grpc.WithDisableServiceConfig(),
		grpc.WithMaxHeaderListSize(maxHeader),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxAnswer)))
	if err != nil {
		return errors.Join(err, socket.Close())
	}
	l.socket, l.conn = socket, conn
	return nil
}

func (l *line) hangUp() {
	if l.conn == nil {
		return
	}
	// The library does not close a socket that it has not come to take.
	_, _ = l.conn.Close(), l.socket.Close()
	l.socket, l.conn = nil, nil
}

// explain says what failed, and what to try.
func (l *line) explain(err error) error {
	var said *status.Status
	if s, ok := status.FromError(err); ok {
		said = s
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%s is not there: this is no node of Kubernetes, or the socket's directory is not mounted (apply deploy/overlays/gpu)", l.Socket)
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("nobody answers at %s: check that the kubelet is up", l.Socket)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w: run the agent as root, or apply deploy/overlays/gpu", err)
	case errors.Is(err, context.DeadlineExceeded), said.Code() == codes.DeadlineExceeded:
		return fmt.Errorf("no answer at %s within %v: look into the kubelet's log", l.Socket, l.Deadline)
	case said == nil:
		return err
	case said.Code() == codes.Unimplemented:
		return fmt.Errorf("at %s there is no pod-resources API v1: it came with Kubernetes 1.20", l.Socket)
	}
	words := []rune(said.Message())
	return fmt.Errorf("list pod resources at %s: %v: %s", l.Socket, said.Code(), string(words[:min(len(words), maxWords)]))
}
