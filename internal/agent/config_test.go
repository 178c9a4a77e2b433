// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"

	"github.com/orb8/orb8/internal/bpftest"
	"github.com/orb8/orb8/internal/cgroup"
)

func variables(env map[string]string) func(string) (string, bool) {
	return func(name string) (string, bool) {
		v, ok := env[name]
		return v, ok
	}
}

func TestSettingsComeFromFlagThenEnvironment(t *testing.T) {
	cfg := Defaults()
	fs := pflag.NewFlagSet("", pflag.ContinueOnError)
	err := cfg.bind(fs, variables(map[string]string{
		"ORB8_GRPC_PORT":         "7000",
		"ORB8_HEALTH_PORT":       "7001",
		"ORB8_FLOW_TIMEOUT_SECS": "45",
		"ORB8_EPOCH":             "250ms",
		"ORB8_MAX_CPU":           "20%",
		"ORB8_MAX_MEMORY":        "128MiB",
		"ORB8_SOCKET":            "",
		"ORB8_LISTEN":            "", // set but empty: as if not set
	}))
	if err != nil {
		t.Fatal(err)
	}
	if err := fs.Parse([]string{"--health-port=8001", "--shutdown-timeout=3", "--max-memory=256MiB"}); err != nil {
		t.Fatal(err)
	}
	want := Defaults()
	want.GRPCPort, want.HealthPort = 7000, 8001
	want.FlowTimeout, want.Epoch, want.ShutdownTimeout = 45*time.Second, 250*time.Millisecond, 3*time.Second
	want.Socket = ""
	want.MaxCPU, want.MaxMemory = 0.2, 256<<20
	if cfg != want {
		t.Errorf("settings are\n%+v, want\n%+v", cfg, want)
	}
	if err := cfg.finish(); err != nil || cfg.Node == "" || cfg.Log == nil {
		t.Errorf("finish: %v, %+v", err, cfg)
	}
}

func TestDefaultsAreTheOriginals(t *testing.T) {
	cfg, err := FromEnv(variables(nil))
	if err != nil || cfg.finish() != nil {
		t.Fatal(err)
	}
	if cfg.GRPCPort != 9090 || cfg.HealthPort != 9091 || cfg.Listen != "127.0.0.1" || cfg.MaxFlows != 100_000 ||
		cfg.FlowTimeout != 30*time.Second || cfg.FollowerQueue != 1000 || cfg.ShutdownTimeout != 10*time.Second ||
		cfg.ExpirationInterval != 10*time.Second || cfg.MaxQueryLimit != 10_000 || cfg.TableEntries != 100_000 || cfg.Epoch != time.Second ||
		cfg.MaxCPU != 0.5 || cfg.MaxMemory != 0 {
		t.Errorf("defaults: %+v", cfg)
	}
}

// TestSettingsAreChecked: what would starve the agent is refused, and what
// means nothing; the error names the flag and the variable.
func TestSettingsAreChecked(t *testing.T) {
	for env, want := range map[[2]string]string{
		{"ORB8_MAX_CPU", "0"}:            "",
		{"ORB8_MAX_CPU", "0.01"}:         "",
		{"ORB8_MAX_CPU", "0.5%"}:         "--max-cpu (ORB8_MAX_CPU): must be 0, or from 0.01",
		{"ORB8_MAX_CPU", "2000"}:         "--max-cpu (ORB8_MAX_CPU): must be 0, or from 0.01",
		{"ORB8_MAX_CPU", "half"}:         "ORB8_MAX_CPU=\"half\": must be a number of cores",
		{"ORB8_MAX_MEMORY", "0"}:         "",
		{"ORB8_MAX_MEMORY", "16MiB"}:     "",
		{"ORB8_MAX_MEMORY", "16"}:        "--max-memory (ORB8_MAX_MEMORY): must be 0, or 16MiB",
		{"ORB8_MAX_MEMORY", "16 Mega"}:   "ORB8_MAX_MEMORY=\"16 Mega\": must be a number of bytes",
		{"ORB8_CGROUP", ""}:              "",
		{"ORB8_CGROUP", "none"}:          "",
		{"ORB8_CGROUP", "."}:             "--cgroup (ORB8_CGROUP): must be none, or the absolute path",
		{"ORB8_CGROUP", "/proc"}:         "--cgroup (ORB8_CGROUP): must be none, or the absolute path",
		{"ORB8_CGROUP", "/not/there"}:    "--cgroup (ORB8_CGROUP): must be none, or the absolute path",
		{"ORB8_GRPC_PORT", "70000"}:      "--grpc-port (ORB8_GRPC_PORT): must be a port",
		{"ORB8_METRICS_LEVEL", "peer"}:   "",
		{"ORB8_METRICS_LEVEL", "all"}:    "--metrics-level (ORB8_METRICS_LEVEL): must be node, namespace, workload, pod or peer",
		{"ORB8_METRICS_MAX_SERIES", "9"}: "--metrics-max-series (ORB8_METRICS_MAX_SERIES): must be from 100",
		{"ORB8_METRICS_GRACE", "0"}:      "--metrics-grace (ORB8_METRICS_GRACE): must be 1s or more",
		{"ORB8_NETNS", ""}:               "",
		{"ORB8_NETNS", "some"}:           "--netns (ORB8_NETNS): must be all, own or ends",
	} {
		cfg, err := FromEnv(variables(map[string]string{env[0]: env[1]}))
		if err == nil {
			err = cfg.finish()
		}
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s=%s: %v", env[0], env[1], err)
		}
	}
}

// TestCgroupIsOneOfVersion2: each setting has a variable, and a group of this
// machine is taken, a file of one is not.
func TestCgroupIsOneOfVersion2(t *testing.T) {
	for _, s := range new(Config).settings() {
		if s.env == "" || new(Config).env(s.flag) != s.env {
			t.Errorf("--%s has the variable %q", s.flag, s.env)
		}
	}
	bpftest.RequireKernel(t)
	groups, err := cgroup.Open(cgroup.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer groups.Close()
	root := groups.Root()
	if !validCgroup(root) || validCgroup(root+"/cgroup.procs") || validCgroup(strings.TrimPrefix(root, "/")) {
		t.Errorf("below %s", root)
	}
}

// TestWrongSettingIsUsage: exit code 2, and one line that says what to do.
func TestWrongSettingIsUsage(t *testing.T) {
	var out bytes.Buffer
	env := variables(map[string]string{"ORB8_CGROUP": "system.slice"})
	if code := Main(t.Context(), Process{Stdout: &out, Stderr: &out, Getenv: env}); code != 2 {
		t.Errorf("exit code %d", code)
	}
	if s := out.String(); strings.Count(s, "\n") != 1 || !strings.Contains(s, "ORB8_CGROUP") || !strings.Contains(s, "--help") {
		t.Errorf("said %q", s)
	}
}
