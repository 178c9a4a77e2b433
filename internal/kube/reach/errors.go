// SPDX-License-Identifier: Apache-2.0

package reach

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/http"
)

// refusal is the API server's no to one request.
type refusal struct {
	code           int
	message        string
	verb, resource string
	namespace, pod string
}

// refused says what the API server refused, and which right is missing.
func (c *Cluster) refused(r refusal) error {
	pods := c.kubectl + " get pods -n " + r.namespace
	switch {
	case r.code == http.StatusUnauthorized:
		return failure(c.kubectl+" auth whoami", "the API server of %s does not accept the credentials of the kubeconfig", c.name)
	case r.code == http.StatusForbidden:
		return failure(c.kubectl+" auth can-i "+r.verb+" "+r.resource+" -n "+r.namespace,
			"forbidden by the API server of %s: reaching agents needs the right to %s %s in namespace %s", c.name, r.verb, r.resource, r.namespace)
	case r.code == http.StatusNotFound && r.pod != "":
		e := failure(pods+" -l "+Label, "there is no pod %s in namespace %s of %s", r.pod, r.namespace, c.name)
		e.gone = true
		return e
	}
	return failure(pods, "the API server of %s did not %s %s: %s", c.name, r.verb, r.resource, cmp.Or(r.message, http.StatusText(r.code)))
}

// unreachable says why the API server did not answer at all.
func (c *Cluster) unreachable(ctx context.Context, err error) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return ctx.Err()
	}
	var unknown x509.UnknownAuthorityError
	var name x509.HostnameError
	var invalid x509.CertificateInvalidError
	var record tls.RecordHeaderError
	switch {
	case errors.As(err, &unknown), errors.As(err, &name), errors.As(err, &invalid):
		return failure(c.kubectl+" cluster-info", "the API server at %s is not the one that the kubeconfig trusts: %s", c.base.Host, oneLine(err))
	case errors.As(err, &record):
		return failure(c.kubectl+" cluster-info", "what answers at %s is no API server: it does not speak TLS", c.base.Host)
	case errors.Is(err, context.DeadlineExceeded):
		err = errors.New("no reply in time")
	}
	return failure(c.kubectl+" get --raw /readyz", "the API server of %s at %s cannot be reached: %s", c.name, c.base.Host, oneLine(err))
}
