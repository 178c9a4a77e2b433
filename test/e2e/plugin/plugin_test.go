// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	deviceplugin "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
	dra "k8s.io/kubelet/pkg/apis/dra/v1"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"

	"github.com/orb8/orb8/internal/bpftest"
)

// registry is a kubelet that plugins come to.
type registry struct {
	deviceplugin.UnimplementedRegistrationServer
	came chan *deviceplugin.RegisterRequest
}

func (r *registry) Register(_ context.Context, q *deviceplugin.RegisterRequest) (*deviceplugin.Empty, error) {
	r.came <- q
	return &deviceplugin.Empty{}, nil
}

func startKubelet(t *testing.T, dir string) (*registry, func()) {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(dir, "kubelet.sock"))
	if err != nil {
		t.Fatal(err)
	}
	r, s, done := &registry{came: make(chan *deviceplugin.RegisterRequest, 8)}, grpc.NewServer(), make(chan error, 1)
	deviceplugin.RegisterRegistrationServer(s, r)
	go func() { done <- s.Serve(l) }()
	stop := sync.OnceFunc(func() {
		s.Stop()
		<-done
	})
	t.Cleanup(stop)
	return r, stop
}

// shortDir is short enough for a socket.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "plugin")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func TestOffers(t *testing.T) {
	root := shortDir(t)
	dir := filepath.Join(root, "device-plugins")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	kubelet, stop := startKubelet(t, dir)
	ctx, end := context.WithCancel(t.Context())
	ended, out := make(chan error, 1), &bytes.Buffer{}
	go func() { ended <- run(ctx, []string{"-root", root, "nvidia.com/gpu=GPU-1@1,GPU-0"}, out) }()
	q := <-kubelet.came
	if q.GetResourceName() != "nvidia.com/gpu" || q.GetVersion() != "v1beta1" {
		t.Errorf("registered %v", q)
	}
	conn, err := grpc.NewClient("unix:"+filepath.Join(dir, q.GetEndpoint()), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	allocates(t, deviceplugin.NewDevicePluginClient(conn))

	// A kubelet that starts takes all sockets away.
	stop()
	if err := os.Remove(filepath.Join(dir, q.GetEndpoint())); err != nil {
		t.Fatal(err)
	}
	kubelet, _ = startKubelet(t, dir)
	<-kubelet.came
	bpftest.Eventually(t, "its socket", func() bool { _, err := os.Stat(filepath.Join(dir, q.GetEndpoint())); return err == nil })
	end()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if !strings.Contains(out.String(), `{"resource":"nvidia.com/gpu","gave":["GPU-0"]}`) {
		t.Errorf("said %s", out)
	}
}

func allocates(t *testing.T, client deviceplugin.DevicePluginClient) {
	t.Helper()
	stream, err := client.ListAndWatch(t.Context(), &deviceplugin.Empty{})
	if err != nil {
		t.Fatal(err)
	}
	offered, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	if d := offered.GetDevices(); len(d) != 2 || d[0].GetID() != "GPU-1" || d[0].GetTopology().GetNodes()[0].GetID() != 1 || d[1].GetTopology() != nil {
		t.Errorf("offered %v", d)
	}
	free := &deviceplugin.ContainerPreferredAllocationRequest{AvailableDeviceIDs: []string{"GPU-0", "GPU-1"}, AllocationSize: 1}
	preferred, err := client.GetPreferredAllocation(t.Context(), &deviceplugin.PreferredAllocationRequest{ContainerRequests: []*deviceplugin.ContainerPreferredAllocationRequest{free}})
	if err != nil {
		t.Fatal(err)
	}
	if ids := preferred.GetContainerResponses()[0].GetDeviceIDs(); !slices.Equal(ids, []string{"GPU-1"}) {
		t.Errorf("prefers %v", ids)
	}
	given, err := client.Allocate(t.Context(), &deviceplugin.AllocateRequest{ContainerRequests: []*deviceplugin.ContainerAllocateRequest{{DevicesIds: []string{"GPU-0"}}}})
	if err != nil {
		t.Fatal(err)
	}
	if got := given.GetContainerResponses()[0].GetEnvs()["NVIDIA_COM_GPU"]; got != "GPU-0" {
		t.Errorf("the container learns %q", got)
	}
}

func TestClaims(t *testing.T) {
	d, err := parseDriver("gpu.nvidia.com=node1/gpu-4")
	if err != nil {
		t.Fatal(err)
	}
	d.root, d.log = shortDir(t), &log{to: io.Discard}
	ctx, end := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- d.keep(ctx) }()
	conn, err := grpc.NewClient("unix:"+d.root+"/plugins_registry/gpu.nvidia.com-reg.sock",
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultCallOptions(grpc.WaitForReady(true)))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	info, err := registration.NewRegistrationClient(conn).GetInfo(t.Context(), &registration.InfoRequest{})
	if err != nil || info.GetType() != "DRAPlugin" || info.GetEndpoint() != d.endpoint() {
		t.Errorf("registers as %v, %v", info, err)
	}
	prepared, err := dra.NewDRAPluginClient(conn).NodePrepareResources(t.Context(), &dra.NodePrepareResourcesRequest{Claims: []*dra.Claim{{Uid: "7"}}})
	if err != nil {
		t.Fatal(err)
	}
	if got := prepared.GetClaims()["7"].GetDevices()[0]; got.GetPoolName() != "node1" || got.GetDeviceName() != "gpu-4" || got.GetCdiDeviceIds()[0] != "k8s.gpu.nvidia.com/device=gpu-4" {
		t.Errorf("prepared %v", got)
	}
	end()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestWords(t *testing.T) {
	for _, args := range [][]string{nil, {"gpu"}, {"gpu="}, {"=GPU-0"}, {"gpu=GPU-0@x"}, {"-claim", "gpu.nvidia.com=gpu-4", "gpu=GPU-0"}} {
		if err := run(t.Context(), args, &bytes.Buffer{}); err == nil {
			t.Errorf("%v was taken", args)
		}
	}
}
