// SPDX-License-Identifier: Apache-2.0

// Command monitoring writes what shows orb8's metrics and watches over them:
// Grafana's dashboards into deploy/grafana, and the alerts into
// deploy/prometheus, and as a PrometheusRule into deploy/monitoring. Its tests
// hold all of them against the metrics that there are. It asks no server.
// `make dashboards` runs it.
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
)

func main() {
	root := flag.String("root", "../..", "the project's root")
	flag.Parse()
	if err := run(*root); err != nil {
		fmt.Fprintln(os.Stderr, "monitoring:", err)
		os.Exit(1)
	}
}

func run(root string) error {
	files, err := generate()
	if err != nil {
		return err
	}
	for name, content := range files {
		path := filepath.Join(root, "deploy", name)
		if err := os.WriteFile(path, content, 0o644); err != nil {
			return fmt.Errorf("write: %w", err)
		}
	}
	return nil
}

// generate gives the files by their names below deploy.
func generate() (map[string][]byte, error) {
	files := map[string][]byte{
		"prometheus/rules.yaml":          rules(alerts()),
		"monitoring/prometheusrule.yaml": prometheusRule(alerts()),
	}
	for name, d := range dashboards() {
		content, err := d.render()
		if err != nil {
			return nil, fmt.Errorf("dashboard %s: %w", name, err)
		}
		files["grafana/"+name+".json"] = append(content, '\n')
	}
	return files, nil
}

// dashboards by the names of their files.
func dashboards() map[string]*dashboard {
	return map[string]*dashboard{
		"cluster":  clusterBoard(),
		"workload": workloadBoard(),
		"pod":      podBoard(),
		"dns":      dnsBoard(),
		"drops":    dropsBoard(),
		"gpu":      gpuBoard(),
		"agent":    agentBoard(),
	}
}
