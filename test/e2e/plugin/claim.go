// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"

	"google.golang.org/grpc"
	dra "k8s.io/kubelet/pkg/apis/dra/v1"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

// driver prepares the one device that can be claimed of it; who has claimed it the
// scheduler says.
type driver struct {
	dra.UnimplementedDRAPluginServer
	registration.UnimplementedRegistrationServer
	name, pool, device string
	root               string
	log                *log
}

func parseDriver(text string) (*driver, error) {
	d := &driver{}
	name, rest, _ := strings.Cut(text, "=")
	pool, device, ok := strings.Cut(rest, "/")
	if !ok || name == "" || pool == "" || device == "" {
		return nil, fmt.Errorf("-claim %q: want DRIVER=POOL/DEVICE", text)
	}
	d.name, d.pool, d.device = name, pool, device
	return d, nil
}

// cdi is how the container runtime knows the device.
func (d *driver) cdi() string { return "k8s." + d.name + "/device=" + d.device }

func (d *driver) endpoint() string { return filepath.Join(d.root, "plugins", d.name, "dra.sock") }

// keep serves where the kubelet is told to look, and where it looks for who is there.
func (d *driver) keep(ctx context.Context) error {
	server := grpc.NewServer()
	dra.RegisterDRAPluginServer(server, d)
	registration.RegisterRegistrationServer(server, d)
	defer server.Stop()
	ended := make(chan error, 2)
	for _, path := range []string{d.endpoint(), filepath.Join(d.root, "plugins_registry", d.name+"-reg.sock")} {
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o750), absent(os.Remove(path))); err != nil {
			return err
		}
		listener, err := net.Listen("unix", path)
		if err != nil {
			return err
		}
		go func() { ended <- server.Serve(listener) }()
	}
	select {
	case <-ctx.Done():
		return nil
	case err := <-ended:
		return err
	}
}

func absent(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func (d *driver) GetInfo(context.Context, *registration.InfoRequest) (*registration.PluginInfo, error) {
	return &registration.PluginInfo{
		Type: registration.DRAPlugin, Name: d.name, Endpoint: d.endpoint(), SupportedVersions: []string{dra.DRAPluginService},
	}, nil
}

func (d *driver) NotifyRegistrationStatus(_ context.Context, s *registration.RegistrationStatus) (*registration.RegistrationStatusResponse, error) {
	d.log.say(said{Resource: d.name, Offered: 1, Error: s.GetError()})
	return &registration.RegistrationStatusResponse{}, nil
}

func (d *driver) NodePrepareResources(_ context.Context, r *dra.NodePrepareResourcesRequest) (*dra.NodePrepareResourcesResponse, error) {
	answer := &dra.NodePrepareResourcesResponse{Claims: map[string]*dra.NodePrepareResourceResponse{}}
	for _, c := range r.GetClaims() {
		d.log.say(said{Resource: d.name, Gave: []string{d.device}})
		answer.Claims[c.GetUid()] = &dra.NodePrepareResourceResponse{Devices: []*dra.Device{{
			PoolName: d.pool, DeviceName: d.device, CdiDeviceIds: []string{d.cdi()},
		}}}
	}
	return answer, nil
}

func (d *driver) NodeUnprepareResources(_ context.Context, r *dra.NodeUnprepareResourcesRequest) (*dra.NodeUnprepareResourcesResponse, error) {
	answer := &dra.NodeUnprepareResourcesResponse{Claims: map[string]*dra.NodeUnprepareResourceResponse{}}
	for _, c := range r.GetClaims() {
		answer.Claims[c.GetUid()] = &dra.NodeUnprepareResourceResponse{}
	}
	return answer, nil
}
