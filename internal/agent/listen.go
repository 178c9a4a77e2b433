// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// listeners are opened before anything is served, so that a port in use ends
// the start and not the run.
type listeners struct {
	grpc []net.Listener
	http net.Listener
}

// announce says where answers are to be had, once they are.
func (l *listeners) announce(log *slog.Logger) {
	if l.http != nil {
		log.Info("health listens", "address", l.http.Addr().String())
	}
	for _, lis := range l.grpc {
		log.Info("gRPC listens", "address", lis.Addr().String())
	}
}

func (l *listeners) close() {
	for _, lis := range l.grpc {
		_ = lis.Close()
	}
	if l.http != nil {
		_ = l.http.Close()
	}
}

func (a *Agent) listen() (*listeners, error) {
	l := &listeners{}
	if a.cfg.GRPCPort != 0 {
		lis, err := listenTCP(a.cfg.Listen, a.cfg.GRPCPort, "ORB8_GRPC_PORT")
		if err != nil {
			return nil, err
		}
		l.grpc = append(l.grpc, lis)
	}
	if a.cfg.HealthPort != 0 {
		lis, err := listenTCP("", a.cfg.HealthPort, "ORB8_HEALTH_PORT")
		if err != nil {
			l.close()
			return nil, err
		}
		l.http = lis
	}
	if a.cfg.Socket != "" {
		lis, err := listenUnix(a.cfg.Socket)
		if err != nil {
			// The ports still answer.
			a.cfg.Log.Warn("no unix socket", "error", err)
			a.problems = append(a.problems, fmt.Sprintf("no unix socket: %v", err))
		} else {
			l.grpc = append(l.grpc, lis)
		}
	}
	return l, nil
}

func listenTCP(host string, port int, env string) (net.Listener, error) {
	lis, err := net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(port)))
	if errors.Is(err, unix.EADDRINUSE) {
		return nil, fmt.Errorf("port %d is in use, perhaps by another agent (set %s to another port)", port, env)
	}
	if err != nil {
		return nil, fmt.Errorf("%w (ORB8_LISTEN is the address, %s the port)", err, env)
	}
	return lis, nil
}

// listenUnix takes over a socket that nobody listens on any more, and touches
// nothing that is not such a socket: a path is easily mistyped.
func listenUnix(path string) (net.Listener, error) {
	if err := os.Mkdir(filepath.Dir(path), 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	lis, err := net.Listen("unix", path)
	if errors.Is(err, unix.EADDRINUSE) {
		if err := removeDeadSocket(path); err != nil {
			return nil, err
		}
		lis, err = net.Listen("unix", path)
	}
	if err != nil {
		return nil, err
	}
	// Root's alone: who can read it can read all traffic's metadata.
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(err, lis.Close())
	}
	return unixListener{lis}, nil
}

// unixListener gives who connects a name: the socket itself has none.
type unixListener struct{ net.Listener }

// unixPeer is a process, as it was when it connected.
type unixPeer struct{ uid, pid int64 }

func (unixPeer) Network() string  { return "unix" }
func (p unixPeer) String() string { return fmt.Sprintf("uid %d, process %d", p.uid, p.pid) }

type unixConn struct {
	net.Conn
	peer unixPeer
}

func (c unixConn) RemoteAddr() net.Addr { return c.peer }

// Accept gives a connection whose peer is unknown the number -1.
func (l unixListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c := unixConn{conn, unixPeer{-1, -1}}
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return c, nil
	}
	_ = raw.Control(func(fd uintptr) {
		if who, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			c.peer = unixPeer{int64(who.Uid), int64(who.Pid)}
		}
	})
	return c, nil
}

func removeDeadSocket(path string) error {
	st, err := os.Lstat(path)
	if err != nil {
		return err
	}
	if st.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("%s exists and is not a socket (set ORB8_SOCKET to another path)", path)
	}
	c, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		return errors.Join(fmt.Errorf("%s is in use by another agent (set ORB8_SOCKET to another path)", path), c.Close())
	}
	// Only this says that nobody has it open; a full backlog says otherwise.
	if !errors.Is(err, unix.ECONNREFUSED) {
		return err
	}
	return os.Remove(path)
}

// serveHTTP answers health questions and gives metrics, to anybody, and nothing
// else.
func (a *Agent) serveHTTP(ctx context.Context, lis net.Listener) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		if err := a.node.Ready(r.Context()); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	mux.Handle("GET /metrics", a.metricsHandler(ctx))
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, WriteTimeout: 10 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10}
	stopped := make(chan error, 1)
	go func() {
		<-ctx.Done()
		timeout, cancel := context.WithTimeout(context.WithoutCancel(ctx), a.cfg.ShutdownTimeout)
		defer cancel()
		stopped <- srv.Shutdown(timeout)
	}()
	if err := srv.Serve(lis); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve health: %w", err)
	}
	return <-stopped
}
