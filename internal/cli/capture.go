// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
)

// captureFlags are the question of orb8 capture, and where the answer goes.
type captureFlags struct {
	filter   filterFlags
	file     string
	duration time.Duration
	packets  uint64
	size     byteSize
	snaplen  uint32
}

// captureHelp are the filters whose meaning is another where packets are asked
// for, and not connections.
var captureHelp = map[string]string{
	"namespace":      "packets of the pods of these `NAMESPACE`s",
	"pod":            "packets of these pods, `NAME` or NAMESPACE/NAME",
	"workload":       "packets of the pods of these workloads, `NAME` or KIND/NAME",
	"label":          "packets of pods with one of these labels: `KEY`, KEY=VALUE or KEY!=VALUE",
	"port":           "packets with these `PORT`s at either end",
	"src-port":       "packets sent from these `PORT`s",
	"dst-port":       "packets sent to these `PORT`s",
	"ip":             "packets with these addresses, `IP` or CIDR, at either end",
	"src-ip":         "packets sent from these addresses, `IP` or CIDR",
	"dst-ip":         "packets sent to these addresses, `IP` or CIDR",
	"direction":      "packets of this `DIRECTION`: ingress (received) or egress (sent)",
	"node":           "on these `NODE`s",
	"from-namespace": "packets sent by pods of these `NAMESPACE`s",
	"from-pod":       "packets sent by these pods, `NAME` or NAMESPACE/NAME",
	"from-workload":  "packets sent by pods of these workloads, `NAME` or KIND/NAME",
	"from-label":     "packets sent by pods with one of these labels: `KEY`, KEY=VALUE or KEY!=VALUE",
	"from-node":      "packets sent by pods on these `NODE`s",
	"to-namespace":   "packets sent to pods of these `NAMESPACE`s",
	"to-pod":         "packets sent to these pods, `NAME` or NAMESPACE/NAME",
	"to-workload":    "packets sent to pods of these workloads, `NAME` or KIND/NAME",
	"to-label":       "packets sent to pods with one of these labels: `KEY`, KEY=VALUE or KEY!=VALUE",
	"to-node":        "packets sent to pods on these `NODE`s",
}

func (a *app) capture() *cobra.Command {
	var f captureFlags
	cmd := &cobra.Command{
		Use:   "capture -w FILE",
		Short: "Packets, into a file for Wireshark or a pipe into tshark",
		Long: `capture writes packets as pcapng, each with the interface and the pod that it was
captured at. They are chosen in the kernel of their node, where nothing is loaded
while nobody captures. Agents answer only if they were started with --allow-capture.
Filters are about packets: --src-port and --from-pod are about who sent one. Without
a pod it captures at every interface that is tapped, and a packet that passes
several of them is in the file several times.
It ends after --duration, --packets or --size, or when interrupted (Ctrl-C); the
agent has a default and a maximum of each.`,
		Example: `  orb8 capture --pod shop/cart-0 --port 6379 -w cart.pcapng
  orb8 capture --workload Deployment/web --not-port 443 --duration 30s -w - | tshark -r -`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := a.checkCapture(&f); err != nil {
				return err
			}
			if err := f.checkBounds(cmd); err != nil {
				return err
			}
			c, err := a.connect(cmd.Context(), f.filter.nodes())
			if err != nil {
				return err
			}
			defer c.Close()
			// The reader of a pipe may leave before there is anything to tell.
			ctx, cancel := context.WithCancel(cmd.Context())
			defer cancel()
			return a.runCapture(ctx, c, &f)
		},
	}
	cmd.Flags().StringVarP(&f.file, "write", "w", "", "write to this `FILE`; - is standard output")
	cmd.Flags().DurationVar(&f.duration, "duration", 0, "stop after this `TIME`, as 30s or 5m (default: the agent's, 1m)")
	cmd.Flags().Uint64Var(&f.packets, "packets", 0, "stop after this `NUMBER` of packets (default: the agent's, 1000000)")
	cmd.Flags().Var(&f.size, "size", "stop after this `SIZE` of packets, as 10MB or 1GiB (default: the agent's, 256MiB)")
	cmd.Flags().Uint32Var(&f.snaplen, "snaplen", 0, "keep this `NUMBER` of bytes of each packet (default: the agent's, 256)")
	f.filter.add(cmd)
	for name, help := range captureHelp {
		cmd.Flags().Lookup(name).Usage = "only " + help
		cmd.Flags().Lookup("not-" + name).Usage = "leave out " + help
	}
	for _, prefix := range []string{"", "from-", "to-"} {
		// A packet does not tell; the agent says so.
		for _, name := range []string{"service", "fqdn"} {
			cmd.Flags().Lookup(prefix + name).Hidden = true
			cmd.Flags().Lookup("not-" + prefix + name).Hidden = true
		}
	}
	return cmd
}

func (a *app) checkCapture(f *captureFlags) error {
	switch {
	case f.file == "":
		return usagef("-w is missing: allowed are the name of a file, and - for standard output")
	case f.file == "-" && a.screen().terminal:
		return usagef("-w -: packets are not for a terminal: allowed are a pipe (| tshark -r -) and a file")
	case f.duration < 0:
		return usagef("--duration %v: allowed are times from 0 on, as 30s or 5m", f.duration)
	}
	for _, asked := range []*orb8v1.Filter{f.filter.include, f.filter.exclude} {
		for _, of := range []interface{ GetServices() []string }{asked, asked.GetFrom(), asked.GetTo()} {
			if len(of.GetServices()) > 0 {
				return errService
			}
		}
		for _, of := range []interface{ GetFqdns() []string }{asked, asked.GetFrom(), asked.GetTo()} {
			if len(of.GetFqdns()) > 0 {
				return errFQDN
			}
		}
	}
	return nil
}

var (
	errService = usagef("--service: a packet does not tell which Service was asked for: allowed are its address (--ip) and its port (--port)")
	errFQDN    = usagef("--fqdn: a packet does not tell by which name its address was found: allowed is the address (--ip)")
)

// checkBounds: a bound of nothing would be taken for none that is given.
func (f *captureFlags) checkBounds(cmd *cobra.Command) error {
	for name, zero := range map[string]bool{"duration": f.duration == 0, "packets": f.packets == 0, "snaplen": f.snaplen == 0} {
		if zero && cmd.Flags().Changed(name) {
			return usagef("--%s 0: nothing would be captured: allowed is more, and without it the agent's default holds", name)
		}
	}
	return nil
}

func (f *captureFlags) request() *orb8v1.CaptureRequest {
	return &orb8v1.CaptureRequest{
		Include: f.filter.include, Exclude: f.filter.exclude,
		DurationNs: int64(f.duration), Packets: f.packets, Bytes: uint64(f.size), Snaplen: f.snaplen,
	}
}

// byteSize is a flag. It implements pflag.Value.
type byteSize uint64

var byteUnits = []struct {
	suffix string
	bytes  uint64
}{
	{"KiB", 1 << 10},
	{"MiB", 1 << 20},
	{"GiB", 1 << 30},
	{"kB", 1e3},
	{"KB", 1e3},
	{"MB", 1e6},
	{"GB", 1e9},
	{"k", 1e3},
	{"K", 1e3},
	{"M", 1e6},
	{"G", 1e9},
	{"B", 1},
	{"", 1},
}

func (s *byteSize) Set(text string) error {
	for _, u := range byteUnits {
		number, ok := strings.CutSuffix(text, u.suffix)
		if !ok {
			continue
		}
		n, err := strconv.ParseUint(number, 10, 64)
		if err != nil || n == 0 || n > 1<<62/u.bytes {
			break
		}
		*s = byteSize(n * u.bytes)
		return nil
	}
	return usagef("not a size: allowed are numbers of bytes as 100000, 10MB or 1GiB")
}

func (s *byteSize) String() string {
	if *s == 0 {
		return ""
	}
	return strconv.FormatUint(uint64(*s), 10)
}

func (s *byteSize) Type() string { return "size" }
