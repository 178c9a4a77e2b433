// SPDX-License-Identifier: Apache-2.0

package monitoring

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

const nodeName = "n1"

// pod is one of the node's. Its container's cgroup is made of what it is called.
type pod struct{ namespace, name, workload, uid, ip string }

func (p *pod) object() corev1.Pod {
	controls := true
	return corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: p.namespace, Name: p.name, UID: types.UID(p.uid), ResourceVersion: "1",
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "DaemonSet", Name: p.workload, UID: types.UID("of-" + p.uid), Controller: &controls}},
		},
		Spec: corev1.PodSpec{NodeName: nodeName, HostNetwork: p.ip == "", Containers: []corev1.Container{{Name: "c"}}},
		Status: corev1.PodStatus{
			Phase: corev1.PodRunning, PodIP: p.ip, PodIPs: []corev1.PodIP{{IP: p.ip}},
			ContainerStatuses: []corev1.ContainerStatus{{Name: "c", ContainerID: "containerd://" + p.container()}},
		},
	}
}

// container is the id of the pod's only one.
func (p *pod) container() string { return strings.Repeat(p.uid[:1], 64) }

// serveCluster is an API server that knows these pods and will never know
// others. It gives the path of a kubeconfig.
func serveCluster(t *testing.T, ln net.Listener, pods []*pod) (kubeconfig string) {
	var list corev1.PodList
	list.Kind, list.APIVersion, list.ResourceVersion = "PodList", "v1", "1"
	for _, p := range pods {
		list.Items = append(list.Items, p.object())
	}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		w.Header().Set("Content-Type", "application/json")
		switch kind := kinds[r.URL.Path]; {
		case kind == "":
			http.NotFound(w, r)
		case q.Get("sendInitialEvents") != "": // as an older server
			w.WriteHeader(http.StatusUnprocessableEntity)
			fmt.Fprint(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Invalid","code":422}`)
		case q.Get("watch") != "":
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		case q.Get("fieldSelector") == "spec.nodeName="+nodeName:
			_ = json.NewEncoder(w).Encode(list)
		default:
			version, name, _ := strings.Cut(kind, " ")
			fmt.Fprintf(w, `{"kind":%q,"apiVersion":%q,"metadata":{"resourceVersion":"1"},"items":[]}`, name, version)
		}
	})}
	go func() { _ = s.Serve(ln) }()
	t.Cleanup(func() { _ = s.Close() })
	kubeconfig = t.TempDir() + "/kubeconfig"
	err := os.WriteFile(kubeconfig, fmt.Appendf(nil, `apiVersion: v1
kind: Config
current-context: test
clusters: [{name: c, cluster: {server: "http://%s"}}]
users: [{name: u, user: {}}]
contexts: [{name: test, context: {cluster: c, user: u}}]
`, ln.Addr()), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	return kubeconfig
}

// kinds of lists by their paths.
var kinds = map[string]string{
	"/api/v1/pods":     "v1 PodList",
	"/api/v1/services": "v1 ServiceList",
	"/api/v1/nodes":    "v1 NodeList",
	"/apis/discovery.k8s.io/v1/endpointslices": "discovery.k8s.io/v1 EndpointSliceList",
	"/apis/apps/v1/replicasets":                "meta.k8s.io/v1 PartialObjectMetadataList",
	"/apis/apps/v1/statefulsets":               "meta.k8s.io/v1 PartialObjectMetadataList",
	"/apis/batch/v1/jobs":                      "meta.k8s.io/v1 PartialObjectMetadataList",
}
