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
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	deviceplugin "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
)

// serve offers until the kubelet is another, or is gone.
func (o *offer) serve(ctx context.Context) error {
	if err := os.Remove(o.socket()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	listener, err := net.Listen("unix", o.socket())
	if err != nil {
		return err
	}
	server := grpc.NewServer()
	deviceplugin.RegisterDevicePluginServer(server, o)
	done := make(chan error, 1)
	go func() { done <- server.Serve(listener) }()
	defer func() {
		server.Stop()
		<-done
	}()
	kubelet := filepath.Join(o.dir, filepath.Base(deviceplugin.KubeletSocket))
	known, err := os.Stat(kubelet)
	if err != nil {
		return err
	}
	if err := o.register(ctx, kubelet); err != nil {
		return err
	}
	o.log.say(said{Resource: o.resource, Offered: len(o.devices)})
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-done:
			done <- err
			return err
		case <-time.After(time.Second):
		}
		now, err := os.Stat(kubelet)
		if err != nil {
			return err
		}
		if _, err := os.Stat(o.socket()); err != nil {
			return err
		}
		if !os.SameFile(known, now) || !known.ModTime().Equal(now.ModTime()) {
			return errors.New("the kubelet was restarted")
		}
	}
}

func (o *offer) register(ctx context.Context, kubelet string) error {
	conn, err := grpc.NewClient("unix:"+kubelet, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	ctx, stop := context.WithTimeout(ctx, 10*time.Second)
	defer stop()
	if _, err := deviceplugin.NewRegistrationClient(conn).Register(ctx, &deviceplugin.RegisterRequest{
		Version: deviceplugin.Version, Endpoint: filepath.Base(o.socket()), ResourceName: o.resource, Options: options,
	}); err != nil {
		return fmt.Errorf("register %s: %w", o.resource, err)
	}
	return nil
}

var options = &deviceplugin.DevicePluginOptions{GetPreferredAllocationAvailable: true}

func (o *offer) GetDevicePluginOptions(context.Context, *deviceplugin.Empty) (*deviceplugin.DevicePluginOptions, error) {
	return options, nil
}

func (o *offer) ListAndWatch(_ *deviceplugin.Empty, stream grpc.ServerStreamingServer[deviceplugin.ListAndWatchResponse]) error {
	if err := stream.Send(&deviceplugin.ListAndWatchResponse{Devices: o.devices}); err != nil {
		return err
	}
	<-stream.Context().Done()
	return nil
}

// GetPreferredAllocation names those that come first.
func (o *offer) GetPreferredAllocation(_ context.Context, r *deviceplugin.PreferredAllocationRequest) (*deviceplugin.PreferredAllocationResponse, error) {
	answer := &deviceplugin.PreferredAllocationResponse{}
	for _, c := range r.GetContainerRequests() {
		chosen := slices.Clone(c.GetMustIncludeDeviceIDs())
		for _, d := range o.devices {
			if len(chosen) < int(c.GetAllocationSize()) && slices.Contains(c.GetAvailableDeviceIDs(), d.ID) && !slices.Contains(chosen, d.ID) {
				chosen = append(chosen, d.ID)
			}
		}
		answer.ContainerResponses = append(answer.ContainerResponses, &deviceplugin.ContainerPreferredAllocationResponse{DeviceIDs: chosen})
	}
	return answer, nil
}

// Allocate gives a container nothing but the names of its devices.
func (o *offer) Allocate(_ context.Context, r *deviceplugin.AllocateRequest) (*deviceplugin.AllocateResponse, error) {
	answer := &deviceplugin.AllocateResponse{}
	for _, c := range r.GetContainerRequests() {
		ids := c.GetDevicesIds()
		o.log.say(said{Resource: o.resource, Gave: ids})
		answer.ContainerResponses = append(answer.ContainerResponses, &deviceplugin.ContainerAllocateResponse{
			Envs: map[string]string{strings.ToUpper(o.plain()): strings.Join(ids, ",")},
		})
	}
	return answer, nil
}
