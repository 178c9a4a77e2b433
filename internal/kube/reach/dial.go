// SPDX-License-Identifier: Apache-2.0

package reach

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/url"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	portforwardproto "k8s.io/apimachinery/pkg/util/portforward"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/transport/spdy"
	"k8s.io/client-go/transport/websocket"
	"k8s.io/klog/v2"
	"k8s.io/streaming/pkg/httpstream"
	streamspdy "k8s.io/streaming/pkg/httpstream/spdy"
)

// pings keep a quiet connection alive through load balancers.
const pings = 10 * time.Second

// Dial connects to the port of an agent's pod through the API server. No local
// port is opened, which any program of this machine could use.
func (c *Cluster) Dial(ctx context.Context, namespace, pod string) (net.Conn, error) {
	u := c.base.JoinPath("api/v1/namespaces", namespace, "pods", pod, "portforward")
	session, err := c.session(ctx, u)
	if err != nil {
		return nil, c.explain(ctx, err, refusal{verb: "create", resource: "pods/portforward", namespace: namespace, pod: pod})
	}
	conn, err := newConn(session, Port)
	if err != nil {
		return nil, c.explain(ctx, errors.Join(err, session.Close()), refusal{verb: "create", resource: "pods/portforward", namespace: namespace, pod: pod})
	}
	return conn, nil
}

// session is one connection to the API server that carries streams to a pod.
// Within a WebSocket where the server knows it: proxies let it through. Older
// servers, and those that do not allow this user to get what it may create,
// have the plain one.
func (c *Cluster) session(ctx context.Context, u *url.URL) (httpstream.Connection, error) {
	session, err := c.overWebsocket(ctx, u)
	if err == nil || ctx.Err() != nil || !httpstream.IsUpgradeFailure(err) {
		return session, err
	}
	plain, again := c.overSPDY(ctx, u)
	if again != nil {
		// The first has the reason as a code.
		return nil, errors.Join(err, again)
	}
	return plain, nil
}

func (c *Cluster) overWebsocket(ctx context.Context, u *url.URL) (httpstream.Connection, error) {
	transport, holder, err := websocket.RoundTripperFor(c.config)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	ws, err := websocket.Negotiate(transport, holder, req, portforwardproto.WebsocketsSPDYTunnelingPrefix+portforward.PortForwardProtocolV1Name)
	if err != nil {
		return nil, err
	}
	return streamspdy.NewClientConnectionWithPings(portforward.NewTunnelingConnectionWithLogger(klog.Background(), ws), pings)
}

func (c *Cluster) overSPDY(ctx context.Context, u *url.URL) (httpstream.Connection, error) {
	transport, upgrader, err := spdy.RoundTripperFor(c.config)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, u.String(), nil)
	if err != nil {
		return nil, err
	}
	session, _, err := spdy.NegotiateStreaming(upgrader, &http.Client{Transport: transport}, req, portforward.PortForwardProtocolV1Name)
	return session, err
}

// explain puts a failure on the way to a pod into words.
func (c *Cluster) explain(ctx context.Context, err error, r refusal) error {
	var upgrade *httpstream.UpgradeFailureError
	var status *apierrors.StatusError
	if errors.As(err, &upgrade) && errors.As(upgrade.Cause, &status) {
		r.code, r.message = int(status.ErrStatus.Code), status.ErrStatus.Message
		return c.refused(r)
	}
	if upgrade != nil {
		r.message = oneLine(err)
		return c.refused(r)
	}
	return c.unreachable(ctx, err)
}
