// SPDX-License-Identifier: Apache-2.0

package kubelet

import (
	"context"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	podresources "k8s.io/kubelet/pkg/apis/podresources/v1"

	"github.com/orb8/orb8/internal/bpftest"
)

const gpus = "nvidia.com/gpu"

func TestWhoWasGivenWhat(t *testing.T) {
	path, a := socket(t), &answerer{}
	a.has(pod("train-0", gpus, "GPU-1", "GPU-0"))
	serveList(t, path, a)
	w, _ := watch(t, Settings{Socket: path})
	s := well(t, w, 2)
	if s.At.IsZero() || s.Lost != 0 || s.Holdings[0].ID != "GPU-0" || s.Holdings[1].Pod != "train-0" {
		t.Errorf("got %+v", s)
	}
	a.has(pod("train-1", gpus, "GPU-0"))
	if s := well(t, w, 1); s.Holdings[0].Pod != "train-1" {
		t.Errorf("got %+v", s)
	}
	a.has()
	well(t, w, 0)
}

func TestWhatHasNotChangedIsKept(t *testing.T) {
	path, a := socket(t), &answerer{}
	a.has(pod("train-0", gpus, "GPU-0"))
	serveList(t, path, a)
	w, _ := watch(t, Settings{Socket: path})
	first := well(t, w, 1)
	bpftest.Eventually(t, "another answer", func() bool { return w.Latest().At.After(first.At) })
	if &w.Latest().Holdings[0] != &first.Holdings[0] {
		t.Error("the same answer was kept twice")
	}
}

func TestAbsentThenThere(t *testing.T) {
	path, a := socket(t), &answerer{}
	w, l := watch(t, Settings{Socket: path})
	s := problem(t, w, "is not there: this is no node of Kubernetes")
	if !s.At.IsZero() || len(s.Holdings) > 0 {
		t.Errorf("got %+v", s)
	}
	a.has(pod("train-0", gpus, "GPU-0"))
	serveList(t, path, a)
	well(t, w, 1)
	if l.count("does not tell") != 1 || l.count("devices=1") != 1 {
		t.Errorf("logged: %s", &l.text)
	}
}

func TestRestarted(t *testing.T) {
	path, a := socket(t), &answerer{}
	a.has(pod("train-0", gpus, "GPU-0"))
	stop := serveList(t, path, a)
	w, l := watch(t, Settings{Socket: path})
	well(t, w, 1)
	stop()
	if s := problem(t, w, "is not there"); len(s.Holdings) != 1 || !strings.Contains(s.Problem, "; until ") {
		t.Errorf("old holdings are gone: %+v", s)
	}
	a.has(pod("train-0", gpus, "GPU-0", "GPU-1"))
	serveList(t, path, a)
	well(t, w, 2)
	if l.count("does not tell") != 1 || l.count("INFO") != 1 {
		t.Errorf("logged: %s", &l.text)
	}
}

func TestRestartedBetweenTwoQuestions(t *testing.T) {
	path, a := socket(t), &answerer{}
	a.has(pod("train-0", gpus, "GPU-0"))
	stop := serveList(t, path, a)
	l := line{Settings: Settings{Socket: path}.filled()}
	defer l.hangUp()
	if _, _, err := l.ask(t.Context()); err != nil {
		t.Fatal(err)
	}
	stop()
	serveList(t, path, a)
	if list, _, err := l.ask(t.Context()); err != nil || len(list) != 1 {
		t.Errorf("got %v, %v", list, err)
	}
}

func TestNobodyListens(t *testing.T) {
	path := socket(t)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	w, _ := watch(t, Settings{Socket: path})
	problem(t, w, "nobody answers at "+path+": check that the kubelet is up")
}

func TestHangs(t *testing.T) {
	path, a := socket(t), &answerer{}
	a.has(pod("train-0", gpus, "GPU-0"))
	serveList(t, path, a)
	w, l := watch(t, Settings{Socket: path, Deadline: 200 * time.Millisecond, Keep: time.Second})
	at := well(t, w, 1).At
	a.hang()
	s := problem(t, w, "no answer at "+path+" within 200ms")
	if since := time.Since(at); len(s.Holdings) != 1 && since < time.Second {
		t.Errorf("old holdings are gone after %v: %+v", since, s)
	}
	bpftest.Eventually(t, "old holdings to be dropped", func() bool { return len(w.Latest().Holdings) == 0 })
	if since := time.Since(at); since < time.Second {
		t.Errorf("old holdings were dropped after %v", since)
	}
	a.has(pod("train-0", gpus, "GPU-0"))
	well(t, w, 1)
	if l.count("does not tell") != 1 || l.count("INFO") != 1 {
		t.Errorf("logged: %s", &l.text)
	}
}

// TestSilent: a socket that takes connections and says nothing at all.
func TestSilent(t *testing.T) {
	path := socket(t)
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	w, _ := watch(t, Settings{Socket: path, Deadline: 50 * time.Millisecond})
	problem(t, w, "no answer at "+path+" within 50ms")
}

func TestCloseWhileItHangs(t *testing.T) {
	path, a := socket(t), &answerer{}
	a.hang()
	serveList(t, path, a)
	w := Start(Settings{Socket: path, Deadline: time.Hour})
	bpftest.Eventually(t, "a question", func() bool { return a.asked.Load() > 0 })
	for range 2 {
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestErrors(t *testing.T) {
	for name, c := range map[string]struct {
		answer func(context.Context) (*podresources.ListPodResourcesResponse, error)
		want   string
	}{
		"refused": {func(context.Context) (*podresources.ListPodResourcesResponse, error) {
			return nil, status.Error(codes.ResourceExhausted, "rejected by rate limit")
		}, "ResourceExhausted: rejected by rate limit"},
		"many words": {func(context.Context) (*podresources.ListPodResourcesResponse, error) {
			return nil, status.Error(codes.Internal, strings.Repeat("ä", 10*maxWords))
		}, "Internal: " + strings.Repeat("ä", maxWords) + " "},
		"huge": {func(context.Context) (*podresources.ListPodResourcesResponse, error) {
			return &podresources.ListPodResourcesResponse{PodResources: []*podresources.PodResources{{Name: strings.Repeat("x", maxAnswer)}}}, nil
		}, "received message larger than max"},
	} {
		t.Run(name, func(t *testing.T) {
			path, a := socket(t), &answerer{}
			a.say(c.answer)
			serveList(t, path, a)
			w, l := watch(t, Settings{Socket: path, Deadline: 20 * time.Second})
			bpftest.Eventually(t, c.want, func() bool { return strings.Contains(w.Latest().Problem+" ", c.want) })
			a.has(pod("train-0", gpus, "GPU-0"))
			well(t, w, 1)
			if n := l.count("does not tell"); n != 1 {
				t.Errorf("logged %d times", n)
			}
		})
	}
}

func TestWithoutV1(t *testing.T) {
	path := socket(t)
	serve(t, path, func(*grpc.Server) {})
	w, _ := watch(t, Settings{Socket: path})
	problem(t, w, "there is no pod-resources API v1")
}

// TestNoGRPC: what answers speaks another language.
func TestNoGRPC(t *testing.T) {
	path := socket(t)
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = fmt.Fprint(c, "HTTP/1.1 400 Bad Request\r\n\r\n")
			_ = c.Close()
		}
	}()
	defer func() {
		_ = l.Close()
		<-done
	}()
	w, _ := watch(t, Settings{Socket: path, Deadline: time.Second})
	bpftest.Eventually(t, "a problem", func() bool { p := w.Latest().Problem; return p != "" && p != notYet })
}

func TestMoreThanFinds(t *testing.T) {
	path, a := socket(t), &answerer{}
	ids := make([]string, maxHoldings+5)
	for i := range ids {
		ids[i] = fmt.Sprintf("GPU-%d", i)
	}
	a.has(pod("train-0", gpus, ids...))
	serveList(t, path, a)
	w, l := watch(t, Settings{Socket: path, Deadline: 20 * time.Second})
	if s := well(t, w, maxHoldings); s.Lost != 5 {
		t.Errorf("lost %d", s.Lost)
	}
	asked := a.asked.Load()
	bpftest.Eventually(t, "another answer", func() bool { return a.asked.Load() > asked })
	if n := l.count("lost=5"); n != 1 {
		t.Errorf("logged %d times", n)
	}
	a.has(pod("train-0", gpus, "GPU-0"))
	if s := well(t, w, 1); s.Lost != 0 {
		t.Errorf("lost %d", s.Lost)
	}
}

// TestTheKubeletRests: one that is slow is asked less.
func TestTheKubeletRests(t *testing.T) {
	path, a := socket(t), &answerer{}
	a.say(func(context.Context) (*podresources.ListPodResourcesResponse, error) {
		time.Sleep(50 * time.Millisecond)
		return &podresources.ListPodResourcesResponse{}, nil
	})
	serveList(t, path, a)
	w, _ := watch(t, Settings{Socket: path})
	well(t, w, 0)
	began, asked := time.Now(), a.asked.Load()
	bpftest.Eventually(t, "two more questions", func() bool { return a.asked.Load() >= asked+2 })
	if took := time.Since(began); took < leisure*50*time.Millisecond {
		t.Errorf("it was asked twice within %v", took)
	}
}

func TestAFileThatIsNoSocket(t *testing.T) {
	path := socket(t)
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	w, _ := watch(t, Settings{Socket: path})
	problem(t, w, "nobody answers at "+path)
}
