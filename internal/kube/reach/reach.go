// SPDX-License-Identifier: Apache-2.0

// Package reach gets a client outside of the cluster to the agents inside: it
// reads the kubeconfig, lists the agents' pods, and connects to their port
// through the API server, without a local port that others could use. It asks
// an agent nothing itself and keeps no connection. The client reads it.
package reach

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"strings"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// Namespace is where agents run when nothing else is said; Label is that of
// their pods, and Port the one of their gRPC.
const (
	Namespace = "orb8-system"
	Label     = "app=orb8-agent"
	Port      = 9090
)

// Config says which cluster.
type Config struct {
	// Path; "" takes KUBECONFIG, ~/.kube/config or the pod's service account.
	Kubeconfig string
	// Of the kubeconfig; "" takes its current one.
	Context string
	// Of the agents; "" takes Namespace.
	Namespace string
}

// Error is what went wrong in the words of its reader, and what to try next.
type Error struct {
	Text, Try string
	// It was about a pod that is not there.
	gone bool
}

func (e *Error) Error() string { return e.Text + "; try: " + e.Try }

// failure makes an Error of the command to try and the words.
func failure(try, format string, args ...any) *Error {
	return &Error{Text: fmt.Sprintf(format, args...), Try: try}
}

// IsGone tells whether a pod was not there: another may be in its place.
func IsGone(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.gone
}

// ErrNoConfig says that there is no kubeconfig, that nobody named one, and that
// there is no cluster around.
var ErrNoConfig = errors.New("no kubeconfig")

// Cluster is a cluster as a kubeconfig knows it.
type Cluster struct {
	name, namespace string
	// For commands to try.
	kubectl string
	config  *rest.Config
	client  *http.Client
	base    *url.URL
}

// Open reads the kubeconfig. Nobody is asked yet.
func Open(cfg Config) (*Cluster, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = cfg.Kubeconfig
	rules.WarnIfAllMissing = false
	loader := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &clientcmd.ConfigOverrides{CurrentContext: cfg.Context})
	config, err := loader.ClientConfig()
	if err != nil {
		return nil, configError(cfg, rules, err)
	}
	c := &Cluster{
		name:      contextName(loader, cfg.Context),
		namespace: cmp.Or(cfg.Namespace, Namespace),
		kubectl:   kubectl(cfg),
		config:    config,
	}
	config.UserAgent = "orb8"
	c.client, err = rest.HTTPClientFor(config)
	if err == nil {
		c.base, _, err = rest.DefaultServerUrlFor(config)
	}
	if err != nil {
		return nil, configError(cfg, rules, err)
	}
	return c, nil
}

// Name is that of the context, or "this cluster" from inside of one.
func (c *Cluster) Name() string { return c.name }

// Namespace is where the agents are looked for.
func (c *Cluster) Namespace() string { return c.namespace }

// Kubectl is a kubectl command that asks this cluster.
func (c *Cluster) Kubectl(args string) string { return c.kubectl + " " + args }

func contextName(loader clientcmd.ClientConfig, told string) string {
	raw, err := loader.RawConfig()
	if err != nil {
		raw = *clientcmdapi.NewConfig()
	}
	name := cmp.Or(told, raw.CurrentContext)
	if name == "" {
		return "this cluster"
	}
	return "context " + name
}

// kubectl is the command that asks the same cluster.
func kubectl(cfg Config) string {
	command := "kubectl"
	if cfg.Kubeconfig != "" {
		command += " --kubeconfig " + cfg.Kubeconfig
	}
	if cfg.Context != "" {
		command += " --context " + cfg.Context
	}
	return command
}

func configError(cfg Config, rules *clientcmd.ClientConfigLoadingRules, err error) error {
	switch {
	case clientcmd.IsEmptyConfig(err) && cfg.Kubeconfig == "" && cfg.Context == "":
		return empty(rules.Precedence)
	case errors.Is(err, fs.ErrNotExist):
		return failure("orb8 --kubeconfig PATH status", "there is no kubeconfig at %s", cfg.Kubeconfig)
	// Of a context that is told and is not there, clientcmd has only words.
	case clientcmd.IsContextNotFound(err), strings.Contains(err.Error(), "does not exist") && cfg.Context != "":
		return failure(kubectl(Config{Kubeconfig: cfg.Kubeconfig})+" config get-contexts", "the kubeconfig has no context %s", cfg.Context)
	}
	return failure(kubectl(cfg)+" config view", "the kubeconfig cannot be used: %s", oneLine(err))
}

// empty says why the usual files lead nowhere.
func empty(files []string) error {
	for _, file := range files {
		if _, err := os.Stat(file); err == nil {
			return failure("kubectl config get-contexts, then orb8 --context NAME status", "the kubeconfig at %s has no current context", file)
		}
	}
	switch {
	case os.Getenv(clientcmd.RecommendedConfigPathEnvVar) != "":
		return failure("orb8 --kubeconfig PATH status", "there is no kubeconfig at %s (from KUBECONFIG)", strings.Join(files, ", "))
	case os.Getenv("KUBERNETES_SERVICE_HOST") != "":
		return failure("orb8 --kubeconfig PATH status, or orb8 --standalone status to look at this node",
			"this pod has neither a kubeconfig nor the token of a service account")
	}
	return ErrNoConfig
}

// oneLine joins the lines of an error, and drops the address of the request,
// which comes before the reason.
func oneLine(err error) string {
	var asked *url.Error
	if errors.As(err, &asked) {
		err = asked.Err
	}
	return strings.Join(strings.Fields(err.Error()), " ")
}
