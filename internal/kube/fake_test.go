// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/client-go/rest"
)

const protobufType = "application/vnd.kubernetes.protobuf"

// apiServer is as much of one as a watch needs, in both encodings.
type apiServer struct {
	*httptest.Server
	scheme *runtime.Scheme

	mu      sync.Mutex
	version int
	// Versions up to this one are forgotten: 410.
	compacted int
	objects   map[string]map[string]runtime.Object // by path, then namespace/name
	events    []apiEvent
	changed   chan struct{}
	// By path: 403, an answer that never comes, a status of trouble.
	denied, hangs map[string]bool
	listOnly      map[string]bool // 403 to who watches
	broken        map[string]int
	kinds         map[string]string // discovery, JSON
	noStream      bool              // an older server: sendInitialEvents is refused
	plainJSON     bool
	requests      []string
	cut           chan struct{} // closed: all streams end
}

type apiEvent struct {
	path, kind  string
	before, obj runtime.Object
	version     int
}

func newAPIServer(t testing.TB) *apiServer {
	s := &apiServer{
		scheme: objects(), version: 100, objects: map[string]map[string]runtime.Object{}, changed: make(chan struct{}),
		denied: map[string]bool{}, listOnly: map[string]bool{}, hangs: map[string]bool{}, broken: map[string]int{}, kinds: map[string]string{}, cut: make(chan struct{}),
	}
	s.Server = httptest.NewUnstartedServer(s)
	s.EnableHTTP2 = true
	s.StartTLS()
	t.Cleanup(func() { s.cutStreams(); s.CloseClientConnections(); s.Close() })
	return s
}

func (s *apiServer) access() *rest.Config {
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	return &rest.Config{Host: s.URL, TLSClientConfig: rest.TLSClientConfig{CAData: ca}}
}

func (s *apiServer) do(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
}

func (s *apiServer) cutStreams() {
	s.do(func() { close(s.cut); s.cut = make(chan struct{}) })
}

func (s *apiServer) asked(part string) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.requests {
		if strings.Contains(r, part) {
			n++
		}
	}
	return n
}

func pathOf(obj runtime.Object) string {
	switch o := obj.(type) {
	case *corev1.Pod:
		return "/api/v1/pods"
	case *corev1.Service:
		return "/api/v1/services"
	case *corev1.Node:
		return "/api/v1/nodes"
	case *discoveryv1.EndpointSlice:
		return "/apis/discovery.k8s.io/v1/endpointslices"
	case *metav1.PartialObjectMetadata:
		return "/apis/" + o.Annotations["at"]
	}
	panic(fmt.Sprintf("no path for %T", obj))
}

// put adds or changes objects.
func (s *apiServer) put(objs ...runtime.Object) {
	for _, obj := range objs {
		s.event(obj, "")
	}
}

func (s *apiServer) remove(objs ...runtime.Object) {
	for _, obj := range objs {
		s.event(obj, "DELETED")
	}
}

func (s *apiServer) event(obj runtime.Object, kind string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	obj = obj.DeepCopyObject()
	m, _ := meta.Accessor(obj)
	path, key := pathOf(obj), m.GetNamespace()+"/"+m.GetName()
	if s.objects[path] == nil {
		s.objects[path] = map[string]runtime.Object{}
	}
	before := s.objects[path][key]
	s.version++
	m.SetResourceVersion(strconv.Itoa(s.version))
	if kind == "DELETED" {
		delete(s.objects[path], key)
	} else {
		s.objects[path][key] = obj
		if kind = "MODIFIED"; before == nil {
			kind = "ADDED"
		}
	}
	s.events = append(s.events, apiEvent{path, kind, before, obj, s.version})
	close(s.changed)
	s.changed = make(chan struct{})
}

// forget makes the server answer 410 to whoever resumes.
func (s *apiServer) forget() { s.do(func() { s.version++; s.compacted, s.events = s.version, nil }) }

func (s *apiServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	q, path := r.URL.Query(), r.URL.Path
	watching := q.Get("watch") == "true" || q.Get("watch") == "1"
	s.mu.Lock()
	verb := "list "
	if watching {
		verb = "watch "
	}
	s.requests = append(s.requests, verb+path+" "+q.Encode()+" "+r.UserAgent())
	denied, hangs, broken, noStream, cut := s.denied[path] || watching && s.listOnly[path], s.hangs[path], s.broken[path], s.noStream, s.cut
	known, kinds := s.objects[path] != nil, s.kinds[path]
	s.mu.Unlock()
	switch {
	case hangs:
		select {
		case <-r.Context().Done():
		case <-cut:
		}
	case denied:
		resource := path[strings.LastIndex(path, "/")+1:]
		s.refuse(w, http.StatusForbidden, metav1.StatusReasonForbidden,
			fmt.Sprintf(`%s is forbidden: User "system:serviceaccount:orb8-system:orb8-agent" cannot %[2]s resource %[1]q at the cluster scope`, resource, strings.TrimSpace(verb)))
	case broken != 0:
		s.refuse(w, broken, metav1.StatusReasonInternalError, "broken")
	case watching && noStream && q.Get("sendInitialEvents") != "":
		s.refuse(w, http.StatusUnprocessableEntity, metav1.StatusReasonInvalid, "sendInitialEvents is forbidden")
	case watching:
		s.watch(w, r, cut)
	case kinds != "":
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(kinds))
	case known || listOf(path) != nil:
		s.list(w, r)
	default:
		s.one(w, path)
	}
}

func (s *apiServer) refuse(w http.ResponseWriter, code int, reason metav1.StatusReason, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	status := metav1.Status{Status: "Failure", Code: int32(code), Reason: reason, Message: message}
	status.Kind, status.APIVersion = "Status", "v1"
	_ = json.NewEncoder(w).Encode(status)
}

// one answers for a single object, which only look-ups ask for.
func (s *apiServer) one(w http.ResponseWriter, path string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	parts := strings.Split(path, "/")
	if len(parts) == 8 && parts[4] == "namespaces" {
		if all, is := s.objects["/apis/"+parts[2]+"/"+parts[3]+"/"+parts[6]]; is {
			if obj := all[parts[5]+"/"+parts[7]]; obj != nil {
				s.write(w, obj)
				return
			}
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusNotFound)
			_, _ = fmt.Fprintf(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","code":404,"reason":"NotFound","details":{"name":%q}}`, parts[7])
			return
		}
	}
	if len(parts) == 6 {
		if obj := s.objects["/apis/"+parts[2]+"/"+parts[3]+"/"+parts[4]]["/"+parts[5]]; obj != nil {
			s.write(w, obj)
			return
		}
	}
	http.NotFound(w, nil)
}

func listOf(path string) runtime.Object {
	switch path {
	case "/api/v1/pods":
		return &corev1.PodList{}
	case "/api/v1/services":
		return &corev1.ServiceList{}
	case "/api/v1/nodes":
		return &corev1.NodeList{}
	case "/apis/discovery.k8s.io/v1/endpointslices":
		return &discoveryv1.EndpointSliceList{}
	case "/apis/apps/v1/replicasets", "/apis/apps/v1/statefulsets", "/apis/batch/v1/jobs":
		return &metav1.PartialObjectMetadataList{}
	}
	return nil
}

func matches(selector string, obj runtime.Object) bool {
	if obj == nil {
		return false
	}
	s, err := fields.ParseSelector(selector)
	set := fields.Set{}
	switch o := obj.(type) {
	case *corev1.Pod:
		set["spec.nodeName"] = o.Spec.NodeName
	case *corev1.Node:
		set["metadata.name"] = o.Name
	}
	return err == nil && s.Matches(set)
}

func (s *apiServer) list(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	list, q := listOf(r.URL.Path), r.URL.Query()
	var found []runtime.Object
	for _, obj := range s.objects[r.URL.Path] {
		if matches(q.Get("fieldSelector"), obj) {
			found = append(found, obj)
		}
	}
	_ = meta.SetList(list, found)
	m, _ := meta.ListAccessor(list)
	m.SetResourceVersion(strconv.Itoa(s.version))
	s.write(w, list)
}

func (s *apiServer) write(w http.ResponseWriter, obj runtime.Object) {
	kind := protobufType
	if s.plainJSON {
		kind = "application/json"
	}
	w.Header().Set("Content-Type", kind)
	_, _ = w.Write(s.encode(obj))
}

func (s *apiServer) encode(obj runtime.Object) []byte {
	kinds, _, err := s.scheme.ObjectKinds(obj)
	if err != nil {
		panic(err)
	}
	obj = obj.DeepCopyObject()
	obj.GetObjectKind().SetGroupVersionKind(kinds[0])
	if s.plainJSON {
		b, _ := json.Marshal(obj)
		return b
	}
	var b bytes.Buffer
	if err := protobuf.NewSerializer(s.scheme, s.scheme).Encode(obj, &b); err != nil {
		panic(err)
	}
	return b.Bytes()
}

func (s *apiServer) send(w http.ResponseWriter, kind string, obj runtime.Object) {
	e := metav1.WatchEvent{Type: kind, Object: runtime.RawExtension{Raw: s.encode(obj)}}
	if s.plainJSON {
		_ = json.NewEncoder(w).Encode(e)
		return
	}
	b, _ := e.Marshal()
	_, _ = w.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(b))), b...))
}

func (s *apiServer) watch(w http.ResponseWriter, r *http.Request, cut chan struct{}) {
	q, path := r.URL.Query(), r.URL.Path
	s.mu.Lock()
	kind := protobufType + ";stream=watch"
	if s.plainJSON {
		kind = "application/json"
	}
	w.Header().Set("Content-Type", kind)
	w.WriteHeader(http.StatusOK)
	from, _ := strconv.Atoi(q.Get("resourceVersion"))
	switch {
	case from != 0 && from < s.compacted:
		s.send(w, "ERROR", &metav1.Status{Status: "Failure", Code: http.StatusGone, Reason: metav1.StatusReasonExpired})
		s.mu.Unlock()
		return
	case q.Get("sendInitialEvents") == "true":
		for _, obj := range s.objects[path] {
			if matches(q.Get("fieldSelector"), obj) {
				s.send(w, "ADDED", obj)
			}
		}
		mark := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{ResourceVersion: strconv.Itoa(s.version), Annotations: map[string]string{metav1.InitialEventsAnnotationKey: "true"}}}
		s.send(w, "BOOKMARK", mark)
		from = s.version
	}
	s.mu.Unlock()
	for {
		s.mu.Lock()
		for _, e := range s.events {
			if e.version <= from || e.path != path {
				continue
			}
			was, is := matches(q.Get("fieldSelector"), e.before), e.kind != "DELETED" && matches(q.Get("fieldSelector"), e.obj)
			switch {
			case is && was:
				s.send(w, "MODIFIED", e.obj)
			case is:
				s.send(w, "ADDED", e.obj)
			case was:
				s.send(w, "DELETED", e.obj)
			}
		}
		from = max(from, s.version)
		changed := s.changed
		s.mu.Unlock()
		w.(http.Flusher).Flush()
		select {
		case <-changed:
		case <-cut:
			return
		case <-r.Context().Done():
			return
		case <-time.After(time.Minute):
			return
		}
	}
}
