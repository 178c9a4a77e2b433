// SPDX-License-Identifier: Apache-2.0

package kubelet

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	podresources "k8s.io/kubelet/pkg/apis/podresources/v1"

	"github.com/orb8/orb8/internal/bpftest"
)

// answerer is a kubelet that answers as it is told.
type answerer struct {
	podresources.UnimplementedPodResourcesListerServer
	asked atomic.Uint64

	mu     sync.Mutex
	answer func(context.Context) (*podresources.ListPodResourcesResponse, error)
}

func (a *answerer) say(f func(context.Context) (*podresources.ListPodResourcesResponse, error)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.answer = f
}

func (a *answerer) has(pods ...*podresources.PodResources) {
	a.say(func(context.Context) (*podresources.ListPodResourcesResponse, error) {
		return &podresources.ListPodResourcesResponse{PodResources: pods}, nil
	})
}

func (a *answerer) hang() {
	a.say(func(ctx context.Context) (*podresources.ListPodResourcesResponse, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	})
}

func (a *answerer) List(ctx context.Context, _ *podresources.ListPodResourcesRequest) (*podresources.ListPodResourcesResponse, error) {
	a.asked.Add(1)
	a.mu.Lock()
	answer := a.answer
	a.mu.Unlock()
	return answer(ctx)
}

// serve is a real server on a unix socket; stop takes it and its socket away.
func serve(t *testing.T, path string, register func(*grpc.Server)) (stop func()) {
	t.Helper()
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer(grpc.MaxSendMsgSize(1 << 30))
	register(s)
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	stop = sync.OnceFunc(func() {
		s.Stop()
		if err := <-done; err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return stop
}

// serveList is one that knows v1.
func serveList(t *testing.T, path string, a *answerer) (stop func()) {
	t.Helper()
	return serve(t, path, func(s *grpc.Server) { podresources.RegisterPodResourcesListerServer(s, a) })
}

// socket is a path that is short enough for one.
func socket(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "kubelet")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return filepath.Join(dir, "kubelet.sock")
}

// watch is a watcher in a hurry, and what it logs.
func watch(t *testing.T, s Settings) (*Watcher, *logged) {
	t.Helper()
	l := &logged{}
	s.Log = slog.New(slog.NewTextHandler(l, nil))
	for _, d := range []*time.Duration{&s.Every, &s.Retry} {
		if *d == 0 {
			*d = 10 * time.Millisecond
		}
	}
	w := Start(s)
	t.Cleanup(func() {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
	return w, l
}

func problem(t *testing.T, w *Watcher, want string) *Snapshot {
	t.Helper()
	bpftest.Eventually(t, "the problem "+want, func() bool { return strings.Contains(w.Latest().Problem, want) })
	return w.Latest()
}

func well(t *testing.T, w *Watcher, devices int) *Snapshot {
	t.Helper()
	bpftest.Eventually(t, "an answer", func() bool { s := w.Latest(); return s.Problem == "" && len(s.Holdings) == devices })
	return w.Latest()
}

type logged struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logged) count(what string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.text.String(), what)
}

// pod is one with devices of a plugin.
func pod(name, resource string, ids ...string) *podresources.PodResources {
	return &podresources.PodResources{Namespace: "ml", Name: name, Containers: []*podresources.ContainerResources{{
		Name:    "main",
		Devices: []*podresources.ContainerDevices{{ResourceName: resource, DeviceIds: ids}},
	}}}
}
