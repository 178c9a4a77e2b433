// SPDX-License-Identifier: Apache-2.0

// Command plugin offers devices that are not there to the kubelet of its node, as
// vendors' device plugins offer theirs, and says which it has given: one line of
// JSON for each allocation. A container learns its own from a variable named after
// the resource: of nvidia.com/gpu, NVIDIA_COM_GPU. Of those that are free, the
// first is given. The end-to-end tests read it.
//
//	plugin nvidia.com/gpu=GPU-0,GPU-1@1 rdma/hca=0000:1c:00.0
//	plugin -claim gpu.nvidia.com=node1/gpu-4 rdma/hca=0000:1c:00.0
//
// What follows @ is the device's NUMA node. What can be claimed is a driver's, in a
// pool, as a ResourceSlice has it.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	deviceplugin "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "plugin:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("plugin", flag.ContinueOnError)
	root := flags.String("root", "/var/lib/kubelet", "the kubelet's directory")
	claim := flags.String("claim", "", "offer a device that is claimed, DRIVER=POOL/DEVICE")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() == 0 {
		return errors.New("say what to offer: RESOURCE=ID[@NUMA],ID[@NUMA]")
	}
	log := &log{to: out}
	var offers []interface{ keep(context.Context) error }
	if *claim != "" {
		d, err := parseDriver(*claim)
		if err != nil {
			return err
		}
		d.root, d.log = *root, log
		offers = append(offers, d)
	}
	for _, text := range flags.Args() {
		o, err := parse(text)
		if err != nil {
			return err
		}
		o.dir, o.log = filepath.Join(*root, filepath.Base(deviceplugin.DevicePluginPath)), log
		offers = append(offers, o)
	}
	ended := make(chan error, len(offers))
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	for _, o := range offers {
		go func() { ended <- o.keep(ctx) }()
	}
	var errs []error
	for range offers {
		errs = append(errs, <-ended)
		stop()
	}
	return errors.Join(errs...)
}

// offer is what one resource has.
type offer struct {
	deviceplugin.UnimplementedDevicePluginServer
	resource string
	devices  []*deviceplugin.Device
	dir      string
	log      *log
}

func parse(text string) (*offer, error) {
	resource, list, ok := strings.Cut(text, "=")
	if !ok || resource == "" || list == "" {
		return nil, fmt.Errorf("%q: want RESOURCE=ID[@NUMA],ID[@NUMA]", text)
	}
	o := &offer{resource: resource}
	for _, id := range strings.Split(list, ",") {
		d := &deviceplugin.Device{Health: deviceplugin.Healthy}
		var numa string
		if d.ID, numa, ok = strings.Cut(id, "@"); ok {
			n, err := strconv.ParseInt(numa, 10, 32)
			if err != nil {
				return nil, fmt.Errorf("%q: NUMA node: %w", text, err)
			}
			d.Topology = &deviceplugin.TopologyInfo{Nodes: []*deviceplugin.NUMANode{{ID: n}}}
		}
		o.devices = append(o.devices, d)
	}
	return o, nil
}

var notPlain = regexp.MustCompile(`[^A-Za-z0-9]+`)

// plain is the resource's name where only letters and digits may be.
func (o *offer) plain() string { return notPlain.ReplaceAllString(o.resource, "_") }

func (o *offer) socket() string { return filepath.Join(o.dir, "e2e-"+o.plain()+".sock") }

// keep offers, and again whenever the kubelet has been restarted: it takes the
// sockets of all plugins away then.
func (o *offer) keep(ctx context.Context) error {
	for ctx.Err() == nil {
		err := o.serve(ctx)
		if err != nil {
			o.log.say(said{Resource: o.resource, Error: err.Error()})
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
	return nil
}

// said is a line of what the program prints.
type said struct {
	Resource string   `json:"resource"`
	Offered  int      `json:"offered,omitempty"`
	Gave     []string `json:"gave,omitempty"`
	Error    string   `json:"error,omitempty"`
}

type log struct {
	mu sync.Mutex
	to io.Writer
}

func (l *log) say(s said) {
	line, err := json.Marshal(s)
	if err != nil {
		panic(err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	_, _ = fmt.Fprintf(l.to, "%s\n", line)
}
