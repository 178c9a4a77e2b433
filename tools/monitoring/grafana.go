// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
)

// dashboard is one of Grafana's, in so many words as ours have.
type dashboard struct {
	uid, title, text string
	variables        []variable
	rows             []row
}

// variable is what may be chosen on top of a dashboard: values of a label.
type variable struct{ name, label, query string }

type row struct {
	title  string
	panels []panel
}

// panel shows one thing.
type panel struct {
	kind  kind
	title string
	// What it means, and what to make of it.
	text string
	// One of Grafana's.
	unit    string
	queries []query
	// Of 24; 0 is as wide as its kind usually is.
	width int
}

type kind string

const (
	lines kind = "timeseries"
	areas kind = "areas" // timeseries on top of each other
	stat  kind = "stat"
	table kind = "table"
)

// query is an expression, and what its result is called.
type query struct{ expr, legend string }

const (
	datasource = "${datasource}"
	columns    = 24
)

type object = map[string]any

// render gives the JSON that Grafana imports.
func (d *dashboard) render() ([]byte, error) {
	panels, id, y := []object{}, 0, 0
	next := func() int { id++; return id }
	for _, r := range d.rows {
		panels = append(panels, object{
			"id": next(), "type": "row", "title": r.title, "collapsed": false, "panels": []object{},
			"gridPos": place{1, columns, 0, y},
		})
		y++
		x, high := 0, 0
		for i := range r.panels {
			p := &r.panels[i]
			w, h := p.size()
			if x+w > columns {
				x, y, high = 0, y+high, 0
			}
			out := p.render()
			out["id"], out["gridPos"] = next(), place{h, w, x, y}
			panels = append(panels, out)
			x, high = x+w, max(high, h)
		}
		y += high
	}
	return json.MarshalIndent(object{
		"uid": d.uid, "title": d.title, "description": d.text, "tags": []string{"orb8"},
		"schemaVersion": 39, "version": 1, "editable": true, "graphTooltip": 1, "refresh": "30s", "timezone": "",
		"time":       object{"from": "now-1h", "to": "now"},
		"templating": object{"list": d.templates()},
		"links": []object{{
			"type": "dashboards", "title": "orb8", "tags": []string{"orb8"}, "asDropdown": true, "includeVars": true, "keepTime": true,
		}},
		"panels": panels,
	}, "", "  ")
}

// place is where a panel stands.
type place struct {
	H int `json:"h"`
	W int `json:"w"`
	X int `json:"x"`
	Y int `json:"y"`
}

func (d *dashboard) templates() []object {
	list := []object{{"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus", "current": object{}}}
	for _, v := range d.variables {
		list = append(list, object{
			"name": v.name, "label": v.label, "type": "query", "datasource": source(),
			"definition": v.query, "query": object{"query": v.query, "refId": v.name},
			// All is also what has no such label, as the node's own traffic.
			"multi": true, "includeAll": true, "allValue": ".*", "current": object{"text": []string{"All"}, "value": []string{"$__all"}},
			"refresh": 2, "sort": 1,
		})
	}
	return list
}

func source() object { return object{"type": "prometheus", "uid": datasource} }

func (p *panel) size() (w, h int) {
	switch p.kind {
	case stat:
		w, h = 4, 4
	case table:
		w, h = columns, 10
	default:
		w, h = 12, 8
	}
	if p.width > 0 {
		w = p.width
	}
	return w, h
}

func (p *panel) render() object {
	defaults := object{"unit": p.unit}
	out := object{
		"type": string(p.kind), "title": p.title, "description": p.text, "datasource": source(),
		"fieldConfig": object{"defaults": defaults, "overrides": []object{}},
	}
	switch p.kind {
	case stat:
		defaults["noValue"] = "0"
		out["options"] = object{
			"reduceOptions": object{"calcs": []string{"lastNotNull"}, "fields": "", "values": false},
			"colorMode":     "none", "graphMode": "area", "textMode": "value",
		}
	case table:
		out["options"] = object{"showHeader": true, "sortBy": []object{{"displayName": p.queries[0].legend, "desc": true}}}
		out["transformations"] = []object{{"id": "organize", "options": object{
			"excludeByName": object{"Time": true}, "renameByName": object{"Value": p.queries[0].legend},
		}}}
	default:
		stacking := "none"
		if p.kind == areas {
			out["type"], stacking = string(lines), "normal"
		}
		defaults["min"] = 0
		defaults["custom"] = object{"lineWidth": 1, "fillOpacity": 10, "showPoints": "never", "stacking": object{"mode": stacking, "group": "A"}}
		out["options"] = object{
			"legend":  object{"showLegend": true, "displayMode": "table", "placement": "bottom", "calcs": []string{"lastNotNull", "max"}},
			"tooltip": object{"mode": "multi", "sort": "desc"},
		}
	}
	out["targets"] = p.targets()
	return out
}

func (p *panel) targets() []object {
	all := make([]object, len(p.queries))
	for i, q := range p.queries {
		all[i] = object{
			"refId": string(rune('A' + i)), "datasource": source(), "editorMode": "code",
			"expr": q.expr, "legendFormat": q.legend, "range": p.kind != table, "instant": p.kind == table,
		}
		if p.kind == table {
			all[i]["format"] = "table"
		}
	}
	return all
}

// The words of expressions.

// rate sums what a counter grows by in a second.
func rate(metric, selector, by string) string {
	return fmt.Sprintf("sum%s (rate(%s{%s}[$__rate_interval]))", grouped(by), metric, selector)
}

// ratio is one rate over another.
func ratio(a, b string) string { return a + " / " + b }

// top keeps the largest.
func top(n int, expr string) string { return fmt.Sprintf("topk(%d, %s)", n, expr) }

// most are the largest sums over all that is shown.
func most(n int, metric, selector, by string) string {
	return fmt.Sprintf("topk(%d, sum%s (increase(%s{%s}[$__range])) > 0)", n, grouped(by), metric, selector)
}

// quantile is of a histogram in classic buckets or, where Prometheus takes those,
// native ones.
func quantile(q float64, metric, selector, by string) string {
	le := "le"
	if by != "" {
		le += ", " + by
	}
	return fmt.Sprintf("histogram_quantile(%g, sum by (%s) (rate(%s_bucket{%s}[$__rate_interval]))) or histogram_quantile(%g, sum%s (rate(%s{%s}[$__rate_interval])))",
		q, le, metric, selector, q, grouped(by), metric, selector)
}

// quantiles are the usual ones.
func quantiles(metric, selector string) []query {
	return []query{
		{quantile(0.5, metric, selector, ""), "p50"},
		{quantile(0.9, metric, selector, ""), "p90"},
		{quantile(0.99, metric, selector, ""), "p99"},
	}
}

func grouped(by string) string {
	if by == "" {
		return ""
	}
	return " by (" + by + ")"
}
