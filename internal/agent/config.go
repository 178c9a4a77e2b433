// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/orb8/orb8/internal/export/meter"
	"github.com/orb8/orb8/internal/export/otel"
	"github.com/orb8/orb8/internal/kubelet"
	"github.com/orb8/orb8/internal/probe/flow"
)

// Config of an agent. Each field is a flag and an environment variable.
type Config struct {
	Node               string
	Version            string
	Log                *slog.Logger
	Listen             string
	GRPCPort           int
	HealthPort         int
	Socket             string
	MaxFlows           int
	FlowTimeout        time.Duration
	ExpirationInterval time.Duration
	FollowerQueue      int
	MaxQueryLimit      int
	ShutdownTimeout    time.Duration
	TableEntries       int
	Epoch              time.Duration
	Attach             string
	StateDir           string
	Netns              string
	Loopback           bool
	DNSPorts           string
	CIDRNames          string
	Cgroup             string
	// How the API server is reached: auto, in-cluster, off, or a kubeconfig.
	Kubernetes string
	// Watch the whole cluster's addresses, not only the own node's pods.
	ClusterMap bool
	PodLabels  string
	MaxPods    int
	// Answer with packets, to who is on this machine.
	AllowCapture bool
	// Cores, and bytes; 0 for no limit.
	MaxCPU    float64
	MaxMemory uint64
	// Send what OpenTelemetry's own variables of the environment say, and which
	// records of connections.
	OTel      bool
	OTelFlows string
	// How much the labels of metrics tell, how many series each has at the most, and
	// how long those of a pod that is gone stay.
	MetricsLevel     string
	MetricsMaxSeries int
	MetricsGrace     time.Duration
	// Have the kernel count what its programs cost.
	BPFStats bool
	// Look at GPUs and RDMA devices; where NVIDIA's library, the kubelet's socket and
	// sysfs are; how long a GPU does nothing before that is a finding.
	GPU                       bool
	NVML, PodResources, Sysfs string
	GPUIdle                   time.Duration
	// Tell of GPUs under dcgm-exporter's names, too.
	DCGMNames bool
}

// Which network namespaces are tapped.
const (
	netnsAll = "all"
	netnsOwn = "own"
	// The own one, and pods by the host's ends of their veths.
	netnsEnds = "ends"
)

// How the API server is reached, where it is not a kubeconfig.
const (
	kubernetesAuto = "auto"
	kubernetesOff  = "off"
)

// setting ties a flag to its environment variable. Times whose variable ends
// in _SECS keep the original's whole seconds there.
type setting struct {
	flag, env, help string
	value           any
}

func (c *Config) settings() []setting {
	return []setting{
		{"node", "ORB8_NODE_NAME", "name of this node in answers (default: the host's name)", &c.Node},
		{"listen", "ORB8_LISTEN", "address that gRPC listens on; beyond loopback, anyone who reaches it can read", &c.Listen},
		{"grpc-port", "ORB8_GRPC_PORT", "port of gRPC; 0 for none", &c.GRPCPort},
		{"health-port", "ORB8_HEALTH_PORT", "port of /healthz, /readyz and /metrics, on all addresses; 0 for none", &c.HealthPort},
		{"socket", "ORB8_SOCKET", "unix socket of gRPC; empty for none", &c.Socket},
		{"max-flows", "ORB8_MAX_FLOWS", "connections remembered", &c.MaxFlows},
		{"flow-timeout", "ORB8_FLOW_TIMEOUT_SECS", "forget a connection that moved nothing for so long", &c.FlowTimeout},
		{"expiration-interval", "ORB8_EXPIRATION_INTERVAL_SECS", "how often to look for such", &c.ExpirationInterval},
		{"broadcast-channel-size", "ORB8_BROADCAST_CHANNEL_SIZE", "batches of up to 64 events that a follower may lag behind", &c.FollowerQueue},
		{"max-query-limit", "ORB8_MAX_QUERY_LIMIT", "flows in one answer at the most", &c.MaxQueryLimit},
		{"shutdown-timeout", "ORB8_SHUTDOWN_TIMEOUT_SECS", "time to end open calls in", &c.ShutdownTimeout},
		{"table-entries", "ORB8_TABLE_ENTRIES", "connections that the kernel's table has room for in one epoch", &c.TableEntries},
		{"epoch", "ORB8_EPOCH", "how often the kernel's table is read", &c.Epoch},
		{"attach", "ORB8_ATTACH", "how to attach: auto, tcx, clsact", &c.Attach},
		{"netns", "ORB8_NETNS", "network namespaces to tap: all of the machine (in Kubernetes: of the node); only the agent's own; or own and ends: pods by the host's ends of their veths, which needs no SYS_ADMIN", &c.Netns},
		{"loopback", "ORB8_LOOPBACK", "tap loopback, too", &c.Loopback},
		{"dns-ports", "ORB8_DNS_PORTS", "ports of DNS servers, with commas, at most 8; none for none: what is asked there is read, also on loopback", &c.DNSPorts},
		{"cidr-names", "ORB8_CIDR_NAMES", "file of names for addresses outside of the cluster, on each line a name and a network: storage 10.20.0.0/16", &c.CIDRNames},
		{"cgroup", "ORB8_CGROUP", "cgroup (v2) below which it is noted who makes sockets; none for nowhere (default: everywhere)", &c.Cgroup},
		{"kubernetes", "ORB8_KUBERNETES", "how to reach the API server: auto (in a pod by its service account, else not at all), in-cluster, off, or the path of a kubeconfig", &c.Kubernetes},
		{"cluster-map", "ORB8_CLUSTER_MAP", "watch the addresses of the whole cluster; without, only this node's pods have names", &c.ClusterMap},
		{"pod-labels", "ORB8_POD_LABELS", "keys of the pod labels that are kept, with commas; * for all", &c.PodLabels},
		{"max-pod-cache", "ORB8_MAX_POD_CACHE", "pods remembered, the deleted ones included", &c.MaxPods},
		{"allow-capture", "ORB8_ALLOW_CAPTURE", "answer orb8 capture with packets, on the unix socket and on loopback only", &c.AllowCapture},
		{"max-cpu", "ORB8_MAX_CPU", "cores that the agent may use before it sheds detail: 0.5, 50% or 500m; 0 for no limit", &c.MaxCPU},
		{"max-memory", "ORB8_MAX_MEMORY", "memory, with the kernel's maps, before the agent forgets connections early: 256MiB; 0 for no limit", &c.MaxMemory},
		{"metrics-level", "ORB8_METRICS_LEVEL", "how much the labels of metrics tell: node, namespace, workload, pod, peer", &c.MetricsLevel},
		{"metrics-max-series", "ORB8_METRICS_MAX_SERIES", "series that one metric has at the most; what is beyond is counted together", &c.MetricsMaxSeries},
		{"metrics-grace", "ORB8_METRICS_GRACE", "how long metrics of a pod that is gone stay: several times what lies between two scrapes", &c.MetricsGrace},
		{"bpf-stats", "ORB8_BPF_STATS", "have the kernel count the time of its programs for /metrics; slows every program on the machine by some ten ns", &c.BPFStats},
		{"gpu", "ORB8_GPU", "look at GPUs and RDMA devices", &c.GPU},
		{"gpu-idle", "ORB8_GPU_IDLE_SECS", "how long a GPU that somebody holds does no work before it is told", &c.GPUIdle},
		{"nvml", "ORB8_NVML", "NVIDIA's libnvidia-ml.so.1 (default: where the loader, or the GPU operator's driver, has it)", &c.NVML},
		{"pod-resources", "ORB8_POD_RESOURCES", "the kubelet's socket that tells which devices it has given", &c.PodResources},
		{"sysfs", "ORB8_SYSFS", "where GPUs' places and RDMA devices are read", &c.Sysfs},
		{"dcgm-names", "ORB8_DCGM_NAMES", "metrics of GPUs also under dcgm-exporter's names", &c.DCGMNames},
		{"otel-flows", "ORB8_OTEL_FLOWS", "connections that OpenTelemetry is sent, where OTEL_EXPORTER_OTLP_ENDPOINT says where: closed, interval (those that live, too, each minute), all (those that open, too) or none", &c.OTelFlows},
		{"state-dir", "ORB8_STATE_DIR", "where attachments that outlive a killed agent are noted", &c.StateDir},
	}
}

// Defaults are the settings of DESIGN: the original's where it had one.
func Defaults() Config {
	return Config{
		Listen:             "127.0.0.1",
		GRPCPort:           9090,
		HealthPort:         9091,
		Socket:             "/run/orb8/agent.sock",
		MaxFlows:           100_000,
		FlowTimeout:        30 * time.Second,
		ExpirationInterval: 10 * time.Second,
		FollowerQueue:      1000,
		MaxQueryLimit:      10_000,
		ShutdownTimeout:    10 * time.Second,
		TableEntries:       100_000,
		Epoch:              time.Second,
		Attach:             string(flow.AttachAuto),
		StateDir:           flow.DefaultStateDir,
		OTelFlows:          string(otel.FlowsInterval),
		Netns:              netnsAll,
		DNSPorts:           "53,5353",
		Kubernetes:         kubernetesAuto,
		ClusterMap:         true,
		PodLabels:          podLabels,
		MaxPods:            10_000,
		// Several times what 100,000 connections a second need: it is never met
		// in what the agent is made for, and holds when something is not so.
		MaxCPU: 0.5,
		// Memory is bounded by MaxFlows and TableEntries, which say how much is
		// wanted; a number beside them would only contradict them.
		MaxMemory: 0,

		MetricsLevel:     meter.Workload.String(),
		MetricsMaxSeries: 5000,
		MetricsGrace:     5 * time.Minute,

		GPU:          true,
		GPUIdle:      30 * time.Second,
		PodResources: kubelet.Socket,
		Sysfs:        "/sys",
	}
}

// bind makes each setting a flag of fs; the flag's default is the environment's
// value where there is one.
func (c *Config) bind(fs *pflag.FlagSet, lookup func(string) (string, bool)) error {
	var all error
	for _, s := range c.settings() {
		help := s.help + " (" + s.env + ")"
		switch v := s.value.(type) {
		case *string:
			fs.StringVar(v, s.flag, *v, help)
		case *int:
			fs.IntVar(v, s.flag, *v, help)
		case *bool:
			fs.BoolVar(v, s.flag, *v, help)
		case *time.Duration:
			fs.Var((*seconds)(v), s.flag, help)
		case *float64:
			fs.Var((*cores)(v), s.flag, help)
		case *uint64:
			fs.Var((*size)(v), s.flag, help)
		}
		text, ok := lookup(s.env)
		if !ok || text == "" && s.env != "ORB8_SOCKET" {
			continue
		}
		f := fs.Lookup(s.flag)
		if err := f.Value.Set(text); err != nil {
			all = errors.Join(all, fmt.Errorf("%s=%q: %s", s.env, text, wants(s.value)))
		}
		f.DefValue = f.Value.String()
	}
	return all
}

func wants(value any) string {
	switch value.(type) {
	case *int:
		return "must be a whole number"
	case *bool:
		return "must be true or false"
	case *time.Duration:
		return "must be a number of seconds, or a duration such as 500ms"
	case *float64:
		return coresForm
	case *uint64:
		return sizeForm
	}
	return "is not valid"
}

// seconds is a duration that may also be written as a plain number of seconds.
type seconds time.Duration

func (s *seconds) Set(text string) error {
	if d, err := time.ParseDuration(text); err == nil {
		*s = seconds(d)
		return nil
	}
	d, err := time.ParseDuration(text + "s")
	if err != nil {
		return errors.New(wants((*time.Duration)(nil)))
	}
	*s = seconds(d)
	return nil
}

func (s *seconds) String() string { return time.Duration(*s).String() }
func (s *seconds) Type() string   { return "duration" }

// finish checks the settings against each other and fills in what is derived.
func (c *Config) finish() error {
	positive := func(name string, ok bool, want string) error {
		if ok {
			return nil
		}
		return fmt.Errorf("--%s (%s): must be %s", name, c.env(name), want)
	}
	port := func(n int) bool { return n >= 0 && n <= 65535 }
	err := errors.Join(
		positive("grpc-port", port(c.GRPCPort), "a port from 0 to 65535"),
		positive("health-port", port(c.HealthPort), "a port from 0 to 65535"),
		positive("max-flows", c.MaxFlows > 0 && c.MaxFlows <= 10_000_000, "from 1 to 10000000"),
		positive("table-entries", c.TableEntries > 0 && c.TableEntries <= 10_000_000, "from 1 to 10000000"),
		positive("broadcast-channel-size", c.FollowerQueue > 0 && c.FollowerQueue <= 1_000_000, "from 1 to 1000000"),
		positive("max-query-limit", c.MaxQueryLimit > 0, "1 or more"),
		positive("epoch", c.Epoch >= minSwap && c.Epoch <= time.Minute, "from 100ms to 1m"),
		positive("flow-timeout", c.FlowTimeout >= time.Second, "1s or more"),
		positive("expiration-interval", c.ExpirationInterval >= time.Second, "1s or more"),
		positive("shutdown-timeout", c.ShutdownTimeout > 0, "more than 0"),
		positive("attach", c.Attach == "auto" || c.Attach == "tcx" || c.Attach == "clsact", "auto, tcx or clsact"),
		positive("max-cpu", c.MaxCPU == 0 || c.MaxCPU >= 0.01 && c.MaxCPU <= 1024, "0, or from 0.01 to 1024 cores"),
		positive("max-memory", c.MaxMemory == 0 || c.MaxMemory >= 16<<20, "0, or 16MiB or more"),
		positive("netns", c.Netns == netnsAll || c.Netns == netnsOwn || c.Netns == netnsEnds, "all, own or ends"),
		positive("max-pod-cache", c.MaxPods > 0 && c.MaxPods <= 1_000_000, "from 1 to 1000000"),
		positive("kubernetes", c.Kubernetes != "", "auto, in-cluster, off, or the path of a kubeconfig"),
		positive("dns-ports", valid(parsePorts(c.DNSPorts)), "up to 8 ports from 1 to 65535, with commas, or none"),
		positive("metrics-level", validLevel(c.MetricsLevel), "node, namespace, workload, pod or peer"),
		positive("metrics-max-series", c.MetricsMaxSeries >= 100 && c.MetricsMaxSeries <= 1_000_000, "from 100 to 1000000"),
		positive("metrics-grace", c.MetricsGrace >= time.Second, "1s or more"),
		positive("gpu-idle", c.GPUIdle >= time.Second, "1s or more"),
		positive("sysfs", filepath.IsAbs(c.Sysfs), "an absolute path"),
		positive("otel-flows", otel.Flows(c.OTelFlows).Valid(), "closed, interval, all or none"),
		positive("cgroup", validCgroup(c.Cgroup), "none, or the absolute path of a directory on a cgroup2 file system"),
	)
	if err != nil {
		return err
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Node == "" {
		if c.Node, err = os.Hostname(); err != nil {
			return fmt.Errorf("name of this node: %w (set ORB8_NODE_NAME)", err)
		}
	}
	return nil
}

func validLevel(text string) bool {
	_, ok := meter.ParseLevel(text)
	return ok
}

const noPorts = "none"

func valid(_ []uint16, err error) bool { return err == nil }

func parsePorts(text string) (ports []uint16, err error) {
	if text == noPorts {
		return nil, nil
	}
	for word := range strings.SplitSeq(text, ",") {
		port, err := strconv.ParseUint(strings.TrimSpace(word), 10, 16)
		if err != nil || port == 0 || len(ports) == flow.MaxDNSPorts {
			return nil, strconv.ErrRange
		}
		ports = append(ports, uint16(port))
	}
	return ports, nil
}

// env is the variable of a flag.
func (c *Config) env(flag string) string {
	for _, s := range c.settings() {
		if s.flag == flag {
			return s.env
		}
	}
	return ""
}

func validCgroup(path string) bool {
	if path == "" || path == cgroupNone {
		return true
	}
	var fs unix.Statfs_t
	if !filepath.IsAbs(path) || unix.Statfs(path, &fs) != nil || fs.Type != unix.CGROUP2_SUPER_MAGIC {
		return false
	}
	st, err := os.Stat(path)
	return err == nil && st.IsDir()
}

// FromEnv gives the settings of the environment over the defaults.
func FromEnv(lookup func(string) (string, bool)) (Config, error) {
	cfg := Defaults()
	err := cfg.bind(pflag.NewFlagSet("", pflag.ContinueOnError), lookup)
	return cfg, err
}
