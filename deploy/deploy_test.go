// SPDX-License-Identifier: Apache-2.0

// Package deploy holds the manifests, and this test of them: that they decode
// strictly as what Kubernetes takes them for, that the agent gets what it needs
// and no more, and that daemonset.yaml is what is made of its overlay.
package deploy

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

// manifests are the objects of one overlay.
type manifests struct {
	namespace *corev1.Namespace
	account   *corev1.ServiceAccount
	service   *corev1.Service
	// By name.
	daemons map[string]*appsv1.DaemonSet
	role    *rbacv1.ClusterRole
	binding *rbacv1.ClusterRoleBinding
}

// decode refuses fields that do not exist, and kinds that are not expected.
func decode(rendered []byte) (m manifests, err error) {
	m.daemons = map[string]*appsv1.DaemonSet{}
	for _, doc := range bytes.Split(rendered, []byte("\n---\n")) {
		var kind metav1.TypeMeta
		if err := yaml.Unmarshal(doc, &kind); err != nil {
			return m, err
		}
		var into any
		switch kind.APIVersion + " " + kind.Kind {
		case "v1 Namespace":
			into = &m.namespace
		case "v1 ServiceAccount":
			into = &m.account
		case "v1 Service":
			into = &m.service
		case "apps/v1 DaemonSet":
			into = &appsv1.DaemonSet{}
		case "rbac.authorization.k8s.io/v1 ClusterRole":
			into = &m.role
		case "rbac.authorization.k8s.io/v1 ClusterRoleBinding":
			into = &m.binding
		default:
			return m, fmt.Errorf("unexpected %s %s", kind.APIVersion, kind.Kind)
		}
		if err := yaml.UnmarshalStrict(doc, into); err != nil {
			return m, fmt.Errorf("%s: %w", kind.Kind, err)
		}
		if d, ok := into.(*appsv1.DaemonSet); ok {
			m.daemons[d.Name] = d
		}
	}
	if m.namespace == nil || m.account == nil || m.service == nil || len(m.daemons) == 0 || m.role == nil || m.binding == nil {
		return m, fmt.Errorf("an object is missing: %+v", m)
	}
	return m, nil
}

func render(t *testing.T, overlay string) []byte {
	t.Helper()
	cmd := exec.Command("go", "tool", "-modfile=../tools/kustomize/go.mod", "kustomize", "build", filepath.Join("overlays", overlay))
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("kustomize build overlays/%s: %v\n%s", overlay, err, stderr.String())
	}
	return out
}

// What a DaemonSet has that the others have not.
type expectation struct {
	image        string
	pull         corev1.PullPolicy
	capabilities []corev1.Capability
	env          map[string]string
	runtime      string
	// Of NVIDIA's NRI plugin: the devices of the container.
	devices string
	// Whether it is for nodes with GPUs, in an overlay that tells them apart.
	gpu bool
}

var (
	release  = regexp.MustCompile(`^ghcr\.io/orb8/orb8-agent:\d+\.\d+\.\d+$`)
	whole    = []corev1.Capability{"BPF", "NET_ADMIN", "NET_BROADCAST", "PERFMON", "SYS_ADMIN", "SYS_PTRACE", "DAC_READ_SEARCH"}
	utility  = map[string]string{"NVIDIA_VISIBLE_DEVICES": "all", "NVIDIA_DRIVER_CAPABILITIES": "utility", "NVIDIA_MIG_MONITOR_DEVICES": "all"}
	overlays = map[string]map[string]expectation{
		"default":      {agents: {capabilities: whole}},
		"dev":          {agents: {capabilities: whole, image: "registry.local/orb8-agent:dev", pull: corev1.PullNever}},
		"old-kernel":   {agents: {capabilities: append(slices.Clone(whole), "SYS_RESOURCE")}},
		"no-sys-admin": {agents: {capabilities: []corev1.Capability{"BPF", "NET_ADMIN", "PERFMON"}, env: map[string]string{"ORB8_NETNS": "ends"}}},
		"gpu": {
			agents:    {capabilities: whole},
			gpuAgents: {capabilities: whole, gpu: true, env: utility, runtime: "nvidia"},
		},
		"gpu-nri": {
			agents:    {capabilities: whole},
			gpuAgents: {capabilities: whole, gpu: true, devices: "management.nvidia.com/gpu=all"},
		},
	}
)

const agents, gpuAgents = "orb8-agent", "orb8-agent-gpu"

func TestOverlays(t *testing.T) {
	found, err := os.ReadDir("overlays")
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range found {
		if _, ok := overlays[dir.Name()]; !ok {
			t.Errorf("overlays/%s is not expected: say here what it is", dir.Name())
		}
	}
	for _, name := range slices.Sorted(maps.Keys(overlays)) {
		t.Run(name, func(t *testing.T) {
			m, err := decode(render(t, name))
			if err != nil {
				t.Fatal(err)
			}
			checkNames(t, m)
			checkRole(t, m)
			if got, want := slices.Sorted(maps.Keys(m.daemons)), slices.Sorted(maps.Keys(overlays[name])); !slices.Equal(got, want) {
				t.Fatalf("DaemonSets are %v, want %v", got, want)
			}
			for daemons, d := range m.daemons {
				want := overlays[name][daemons]
				checkSelectors(t, &d.Spec, want)
				checkPod(t, &d.Spec.Template.Spec)
				checkNodes(t, m, d, want)
				checkContainer(t, &d.Spec.Template.Spec.Containers[0], want)
				checkMounts(t, &d.Spec.Template.Spec, want)
			}
		})
	}
}

func TestDaemonsetIsTheDefaultRendered(t *testing.T) {
	committed, err := os.ReadFile("daemonset.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.HasSuffix(committed, append([]byte("Do not edit.\n"), render(t, "default")...)) {
		t.Error("daemonset.yaml is not what overlays/default makes: commit the result of make manifests")
	}
}

func TestMisspeltFieldIsRefused(t *testing.T) {
	good := string(render(t, "dev"))
	for _, change := range [][2]string{
		{"hostNetwork:", "hostNetworking:"},
		{"readOnlyRootFilesystem: true", "readOnlyRootFilesystem: soon"},
		{"kind: Service\n", "kind: Servce\n"},
		{"mountPropagation:", "mountpropagated:"},
	} {
		bad := strings.Replace(good, change[0], change[1], 1)
		if bad == good {
			t.Errorf("%q is not in the manifests", change[0])
		} else if _, err := decode([]byte(bad)); err == nil {
			t.Errorf("%q passes", change[1])
		}
	}
}

func checkNames(t *testing.T, m manifests) {
	t.Helper()
	const name, namespace = agents, "orb8-system"
	if m.namespace.Name != namespace || m.namespace.Labels["pod-security.kubernetes.io/enforce"] != "privileged" {
		t.Errorf("namespace %s, labels %v", m.namespace.Name, m.namespace.Labels)
	}
	for _, d := range m.daemons {
		if d.Namespace != namespace {
			t.Errorf("DaemonSet %s is in %s", d.Name, d.Namespace)
		}
	}
	for _, o := range []metav1.Object{m.account, m.service} {
		if o.GetName() != name || o.GetNamespace() != namespace {
			t.Errorf("%T is %s/%s", o, o.GetNamespace(), o.GetName())
		}
	}
	subject := rbacv1.Subject{Kind: "ServiceAccount", Name: name, Namespace: namespace}
	if m.role.Name != name || m.binding.RoleRef.Name != name || !slices.Equal(m.binding.Subjects, []rbacv1.Subject{subject}) {
		t.Errorf("role %s, bound %+v to %+v", m.role.Name, m.binding.RoleRef, m.binding.Subjects)
	}
	if !maps.Equal(m.service.Spec.Selector, map[string]string{"app": name}) {
		t.Errorf("the Service selects %v", m.service.Spec.Selector)
	}
	if m.service.Spec.ClusterIP != corev1.ClusterIPNone {
		t.Error("the Service is not headless")
	}
}

// checkSelectors: all pods are agents to who looks for some, and those of nodes
// with GPUs are a DaemonSet's own.
func checkSelectors(t *testing.T, d *appsv1.DaemonSetSpec, want expectation) {
	t.Helper()
	labels := map[string]string{"app": agents}
	if want.gpu {
		labels["orb8.io/nodes"] = "gpu"
	}
	if !maps.Equal(d.Selector.MatchLabels, labels) || d.Template.Labels["app"] != agents || d.Template.Labels["orb8.io/nodes"] != labels["orb8.io/nodes"] {
		t.Errorf("selects %v, pod's labels %v", d.Selector.MatchLabels, d.Template.Labels)
	}
}

// checkNodes: of two DaemonSets each node has one, and the devices come by the
// runtime class or by NVIDIA's NRI plugin.
func checkNodes(t *testing.T, m manifests, d *appsv1.DaemonSet, want expectation) {
	t.Helper()
	const key = "nvidia.com/gpu.present"
	pod := d.Spec.Template.Spec
	nodes := map[string]string{"kubernetes.io/os": "linux"}
	if want.gpu {
		nodes[key] = "true"
	}
	if !maps.Equal(pod.NodeSelector, nodes) {
		t.Errorf("%s is for nodes %v, want %v", d.Name, pod.NodeSelector, nodes)
	}
	leaves := corev1.NodeSelectorRequirement{Key: key, Operator: corev1.NodeSelectorOpNotIn, Values: []string{"true"}}
	switch a := pod.Affinity; {
	case want.gpu || len(m.daemons) == 1:
		if a != nil {
			t.Errorf("%s has the affinity %+v", d.Name, a)
		}
	case a == nil || !reflect.DeepEqual(a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms, []corev1.NodeSelectorTerm{{MatchExpressions: []corev1.NodeSelectorRequirement{leaves}}}):
		t.Errorf("%s does not leave the nodes with GPUs to the other", d.Name)
	}
	runtime := ""
	if pod.RuntimeClassName != nil {
		runtime = *pod.RuntimeClassName
	}
	if devices := d.Spec.Template.Annotations["nvidia.cdi.k8s.io/container.agent"]; runtime != want.runtime || devices != want.devices {
		t.Errorf("%s has the runtime class %q and devices %q", d.Name, runtime, devices)
	}
}

// checkRole: the agent reads, what it lists is what it must, and nothing in
// which secrets may be.
func checkRole(t *testing.T, m manifests) {
	t.Helper()
	listed := map[string]bool{}
	for _, rule := range m.role.Rules {
		if len(rule.NonResourceURLs) > 0 || slices.Contains(rule.Resources, "*") || slices.Contains(rule.APIGroups, "*") {
			t.Errorf("too wide: %+v", rule)
		}
		for _, verb := range rule.Verbs {
			if !slices.Contains([]string{"get", "list", "watch"}, verb) {
				t.Errorf("%v may be changed: %s", rule.Resources, verb)
			}
		}
		for _, r := range rule.Resources {
			if slices.Contains(rule.Verbs, "list") && slices.Contains(rule.Verbs, "watch") {
				listed[r] = true
			}
			if slices.Contains([]string{"secrets", "configmaps"}, r) || strings.Contains(r, "/") {
				t.Errorf("%s is none of the agent's business", r)
			}
		}
	}
	want := []string{"endpointslices", "jobs", "nodes", "pods", "replicasets", "services", "statefulsets"}
	if got := slices.Sorted(maps.Keys(listed)); !slices.Equal(got, want) {
		t.Errorf("lists and watches %v, want %v", got, want)
	}
}

func checkPod(t *testing.T, pod *corev1.PodSpec) {
	t.Helper()
	if !pod.HostNetwork || !pod.HostPID || pod.HostIPC || pod.DNSPolicy != corev1.DNSClusterFirstWithHostNet {
		t.Errorf("hostNetwork %v, hostPID %v, hostIPC %v, DNS %s", pod.HostNetwork, pod.HostPID, pod.HostIPC, pod.DNSPolicy)
	}
	if pod.PriorityClassName != "system-node-critical" || !slices.Equal(pod.Tolerations, []corev1.Toleration{{Operator: corev1.TolerationOpExists}}) {
		t.Errorf("priority %q, tolerations %v", pod.PriorityClassName, pod.Tolerations)
	}
	if s := pod.SecurityContext; s == nil || s.SeccompProfile == nil || s.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault {
		t.Errorf("security context %+v", s)
	}
	if len(pod.Containers) != 1 || len(pod.InitContainers) != 0 {
		t.Fatalf("%d containers and %d before them, want one", len(pod.Containers), len(pod.InitContainers))
	}
}

func checkContainer(t *testing.T, c *corev1.Container, want expectation) {
	t.Helper()
	if c.Name != "agent" || c.ImagePullPolicy != want.pull || want.image != "" && c.Image != want.image || want.image == "" && !release.MatchString(c.Image) {
		t.Errorf("container %s, image %s, pulled %q", c.Name, c.Image, c.ImagePullPolicy)
	}
	s := c.SecurityContext
	if s == nil || s.Capabilities == nil || !slices.Equal(s.Capabilities.Drop, []corev1.Capability{"ALL"}) || !slices.Equal(s.Capabilities.Add, want.capabilities) {
		t.Fatalf("security context %+v", s)
	}
	is := func(b *bool, value bool) bool { return b != nil && *b == value }
	if !is(s.Privileged, false) || !is(s.AllowPrivilegeEscalation, false) || !is(s.ReadOnlyRootFilesystem, true) {
		t.Error("privileged, may escalate, or may write its root")
	}
	env := map[string]string{}
	for _, e := range c.Env {
		if e.ValueFrom == nil {
			env[e.Name] = e.Value
		} else if e.Name != "ORB8_NODE_NAME" || e.ValueFrom.FieldRef == nil || e.ValueFrom.FieldRef.FieldPath != "spec.nodeName" {
			t.Errorf("unexpected %s", e.Name)
		}
	}
	if !maps.Equal(env, want.env) && len(env)+len(want.env) > 0 {
		t.Errorf("env is %v, want %v", env, want.env)
	}
	if c.LivenessProbe == nil || c.ReadinessProbe == nil || c.StartupProbe == nil {
		t.Error("a probe is missing")
	}
	if c.Resources.Requests.Cpu().IsZero() || c.Resources.Limits.Memory().IsZero() || !c.Resources.Limits.Cpu().IsZero() {
		t.Errorf("resources %+v", c.Resources)
	}
}

// checkMounts: what of the node is to be seen, and how.
func checkMounts(t *testing.T, pod *corev1.PodSpec, expected expectation) {
	t.Helper()
	paths := map[string]string{}
	for _, v := range pod.Volumes {
		if v.HostPath == nil {
			t.Fatalf("volume %s is not of the node", v.Name)
		}
		paths[v.Name] = v.HostPath.Path
	}
	got := map[string]string{}
	for _, m := range pod.Containers[0].VolumeMounts {
		how := "rw"
		if m.ReadOnly {
			how = "ro"
		}
		if m.MountPropagation != nil {
			how += " " + string(*m.MountPropagation)
		}
		got[m.MountPath] = how
		if paths[m.Name] != m.MountPath {
			t.Errorf("%s is mounted at %s", paths[m.Name], m.MountPath)
		}
	}
	want := map[string]string{
		"/run/netns": "ro HostToContainer", "/sys/fs/cgroup": "ro HostToContainer", "/run/orb8": "rw",
		"/var/lib/kubelet/pod-resources": "ro",
	}
	if expected.gpu {
		want["/run/nvidia"] = "ro HostToContainer"
	}
	if !maps.Equal(got, want) {
		t.Errorf("mounts are %v, want %v", got, want)
	}
}
