// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/util/connrotation"

	"github.com/orb8/orb8/internal/version"
)

const (
	objectTypes = "application/vnd.kubernetes.protobuf,application/json"
	// Only the metadata of objects, whatever they are.
	metadataTypes = "application/vnd.kubernetes.protobuf;as=%[1]s;g=meta.k8s.io;v=v1,application/json;as=%[1]s;g=meta.k8s.io;v=v1"
	// An API server that has not begun to answer by then is asked anew.
	answerLimit = time.Minute
	dialLimit   = 10 * time.Second
	pageSize    = 500
)

var errNoAnswer = fmt.Errorf("no answer within %v", answerLimit)

// access finds the API server and the right to ask it.
func access(kubeconfig string) (*rest.Config, error) {
	switch kubeconfig {
	case InCluster:
		cfg, err := rest.InClusterConfig()
		if err != nil {
			return nil, fmt.Errorf("read the service account: %w: is it mounted (automountServiceAccountToken)?", err)
		}
		return cfg, nil
	case "":
		cfg, err := rest.InClusterConfig()
		if err == nil {
			return cfg, nil
		}
		if !errors.Is(err, rest.ErrNotInCluster) {
			return nil, fmt.Errorf("read the service account: %w: is it mounted (automountServiceAccountToken)?", err)
		}
		if kubeconfig = os.Getenv("KUBECONFIG"); kubeconfig == "" {
			return nil, ErrNoCluster
		}
	}
	cfg, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("read kubeconfig %s: %w: check it with `kubectl --kubeconfig %[1]s get nodes`", kubeconfig, err)
	}
	return cfg, nil
}

// client asks the API server, as little as it can be asked.
type client struct {
	rest *rest.RESTClient
	http *http.Client
	dial *connrotation.Dialer
	host string
}

func connect(cfg *rest.Config, node string) (*client, error) {
	cfg = rest.CopyConfig(cfg)
	cfg.UserAgent = fmt.Sprintf("orb8-agent/%s (%s)", version.String(), node)
	cfg.AcceptContentTypes = objectTypes
	cfg.ContentType = runtime.ContentTypeProtobuf
	cfg.NegotiatedSerializer = serializer.NewCodecFactory(objects()).WithoutConversion()
	cfg.WarningHandler = rest.NoWarnings{}
	cfg.GroupVersion = &schema.GroupVersion{}
	// Paths are given whole. Watches are few, and look-ups have a limit of their own.
	cfg.APIPath = "/"
	cfg.QPS = -1
	// A connection that still ends its streams is not idle: close would leave it.
	dial := connrotation.NewDialer(plainly((&net.Dialer{Timeout: dialLimit, KeepAlive: 3 * dialLimit}).DialContext))
	cfg.Dial = dial.DialContext
	hc, err := rest.HTTPClientFor(cfg)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", cfg.Host, err)
	}
	rc, err := rest.RESTClientForConfigAndClient(cfg, hc)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", cfg.Host, err)
	}
	return &client{rest: rc, http: hc, dial: dial, host: cfg.Host}, nil
}

// plainly makes of a timeout an error like others: the library takes it for a
// stream that has ended.
func plainly(dial connrotation.DialFunc) connrotation.DialFunc {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := dial(ctx, network, address)
		if err != nil {
			return nil, fmt.Errorf("no connection: %w", err)
		}
		return c, nil
	}
}

// objects are all that orb8 reads: what is not named here is not linked.
func objects() *runtime.Scheme {
	s := runtime.NewScheme()
	core, discovery := corev1.SchemeGroupVersion, discoveryv1.SchemeGroupVersion
	s.AddKnownTypes(core, &corev1.Pod{}, &corev1.PodList{}, &corev1.Service{}, &corev1.ServiceList{}, &corev1.Node{}, &corev1.NodeList{})
	s.AddKnownTypes(discovery, &discoveryv1.EndpointSlice{}, &discoveryv1.EndpointSliceList{})
	s.AddKnownTypes(metav1.SchemeGroupVersion, &metav1.PartialObjectMetadata{}, &metav1.PartialObjectMetadataList{})
	for _, gv := range []schema.GroupVersion{core, discovery, metav1.SchemeGroupVersion} {
		metav1.AddToGroupVersion(s, gv)
	}
	return s
}

func (c *client) request(r *resource, opts *metav1.ListOptions) *rest.Request {
	opts.FieldSelector = r.selector
	// The reflector tries again, and the problems tell of each failure.
	req := c.rest.Get().MaxRetries(0).AbsPath(r.path).VersionedParams(opts, metav1.ParameterCodec)
	if !r.owners() {
		return req
	}
	kind := "PartialObjectMetadataList"
	if opts.Watch {
		kind = "PartialObjectMetadata"
	}
	return req.SetHeader("Accept", fmt.Sprintf(metadataTypes, kind))
}

func (c *client) list(ctx context.Context, r *resource, opts metav1.ListOptions) (runtime.Object, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, answerLimit, errNoAnswer)
	defer cancel()
	obj, err := c.request(r, &opts).Do(ctx).Get()
	if err != nil && context.Cause(ctx) == errNoAnswer {
		return nil, errNoAnswer
	}
	return obj, err
}

// watch opens a stream; stop must be called at its end.
func (c *client) watch(ctx context.Context, r *resource, opts metav1.ListOptions) (w watch.Interface, stop func(), err error) {
	opts.Watch = true
	ctx, cancel := context.WithCancelCause(ctx)
	limit := time.AfterFunc(answerLimit, func() { cancel(errNoAnswer) })
	defer limit.Stop()
	w, err = c.request(r, &opts).Watch(ctx)
	if err != nil {
		if context.Cause(ctx) == errNoAnswer {
			err = errNoAnswer
		}
		cancel(nil)
		return nil, nil, err
	}
	return w, func() { cancel(nil) }, nil
}

// metadata asks for one object of any kind.
func (c *client) metadata(ctx context.Context, path string) (*metav1.PartialObjectMetadata, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, answerLimit, errNoAnswer)
	defer cancel()
	m := &metav1.PartialObjectMetadata{}
	err := c.rest.Get().AbsPath(path).
		SetHeader("Accept", fmt.Sprintf(metadataTypes, "PartialObjectMetadata")).Do(ctx).Into(m)
	return m, err
}

// kinds asks which kinds a group and version has.
func (c *client) kinds(ctx context.Context, path string) (*metav1.APIResourceList, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, answerLimit, errNoAnswer)
	defer cancel()
	l := &metav1.APIResourceList{}
	err := c.rest.Get().AbsPath(path).SetHeader("Accept", runtime.ContentTypeJSON).Do(ctx).Into(l)
	return l, err
}

func (c *client) close() {
	c.dial.CloseAll()
	c.http.CloseIdleConnections()
}
