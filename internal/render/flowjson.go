// SPDX-License-Identifier: Apache-2.0

package render

import (
	"io"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
)

// flowJSON is a connection as programs read it. Names and types are a promise:
// fields may be added, none changes. Unknown fields are absent; the traffic is
// always known.
type flowJSON struct {
	ConnectionID string  `json:"connection_id,omitempty"`
	Node         string  `json:"node,omitempty"`
	Interface    string  `json:"interface,omitempty"`
	Netns        uint64  `json:"netns,omitempty"`
	NetnsName    string  `json:"netns_name,omitempty"`
	FirstSeenNS  int64   `json:"first_seen_ns,omitempty"`
	LastSeenNS   int64   `json:"last_seen_ns,omitempty"`
	Protocol     string  `json:"protocol"`
	OpenedBy     string  `json:"opened_by"`
	Local        endJSON `json:"local"`
	Remote       endJSON `json:"remote"`
	// The tuple on the wire, where it is another than the socket's.
	Translated  *translatedJSON `json:"translated,omitempty"`
	TxBytes     uint64          `json:"tx_bytes"`
	TxPackets   uint64          `json:"tx_packets"`
	RxBytes     uint64          `json:"rx_bytes"`
	RxPackets   uint64          `json:"rx_packets"`
	RTT         uint32          `json:"rtt_us,omitempty"`
	MinRTT      uint32          `json:"min_rtt_us,omitempty"`
	Retransmits *uint64         `json:"retransmits,omitempty"`
	State       string          `json:"state,omitempty"`
	healthJSON
	TLS *tlsJSON `json:"tls,omitempty"`
}

type translatedJSON struct {
	Local  addressJSON `json:"local"`
	Remote addressJSON `json:"remote"`
}

type addressJSON struct {
	IP   string  `json:"ip"`
	Port *uint32 `json:"port,omitempty"`
}

type endJSON struct {
	IP         string            `json:"ip,omitempty"`
	Port       *uint32           `json:"port,omitempty"`
	Namespace  string            `json:"namespace,omitempty"`
	Pod        string            `json:"pod,omitempty"`
	PodUID     string            `json:"pod_uid,omitempty"`
	Container  string            `json:"container,omitempty"`
	Workload   *workloadJSON     `json:"workload,omitempty"`
	Node       string            `json:"node,omitempty"`
	Zone       string            `json:"zone,omitempty"`
	Labels     map[string]string `json:"labels,omitempty"`
	Unit       string            `json:"unit,omitempty"`
	Process    string            `json:"process,omitempty"`
	PID        uint32            `json:"pid,omitempty"`
	Class      string            `json:"class,omitempty"`
	Service    string            `json:"service,omitempty"`
	FQDN       string            `json:"fqdn,omitempty"`
	FQDNSource string            `json:"fqdn_source,omitempty"`
}

// tlsJSON is what the local end said as it began to speak TLS.
type tlsJSON struct {
	ServerName string   `json:"server_name,omitempty"`
	ALPN       []string `json:"alpn,omitempty"`
	Version    string   `json:"version,omitempty"`
	ECH        bool     `json:"ech"`
}

type workloadJSON struct {
	Kind string `json:"kind,omitempty"`
	Name string `json:"name,omitempty"`
}

// eventJSON is what happened, and then the connection.
type eventJSON struct {
	Event  string `json:"event"`
	TimeNS int64  `json:"time_ns"`
	flowJSON
	*deltaJSON
}

// deltaJSON is what moved in [start, end); only traffic has it.
type deltaJSON struct {
	StartNS   int64  `json:"delta_start_ns"`
	EndNS     int64  `json:"delta_end_ns"`
	TxBytes   uint64 `json:"delta_tx_bytes"`
	TxPackets uint64 `json:"delta_tx_packets"`
	RxBytes   uint64 `json:"delta_rx_bytes"`
	RxPackets uint64 `json:"delta_rx_packets"`
}

// FlowJSON writes a connection as one line.
func FlowJSON(w io.Writer, f *orb8v1.FlowRecord) error { return JSON(w, newFlowJSON(f)) }

// EventJSON writes an event as one line.
func EventJSON(w io.Writer, e *orb8v1.Event) error {
	f := e.GetFlow()
	line := eventJSON{Event: eventName(e.GetKind()), TimeNS: e.GetTimeNs(), flowJSON: newFlowJSON(f)}
	if d := f.GetDelta(); d != nil && e.GetKind() == orb8v1.EventKind_EVENT_KIND_TRAFFIC {
		line.deltaJSON = &deltaJSON{
			StartNS: f.GetDeltaStartNs(), EndNS: f.GetDeltaEndNs(),
			TxBytes: d.GetTxBytes(), TxPackets: d.GetTxPackets(),
			RxBytes: d.GetRxBytes(), RxPackets: d.GetRxPackets(),
		}
	}
	return JSON(w, line)
}

func newFlowJSON(f *orb8v1.FlowRecord) flowJSON {
	ports := hasPorts(f)
	j := flowJSON{
		ConnectionID: hexID(f.GetConnectionId()),
		Node:         f.GetNode(),
		Interface:    f.GetTap().GetInterface(),
		Netns:        f.GetTap().GetNetns(),
		NetnsName:    f.GetTap().GetNamespace(),
		FirstSeenNS:  f.GetFirstSeenNs(),
		LastSeenNS:   f.GetLastSeenNs(),
		Protocol:     protocolName(f.GetProtocol()),
		OpenedBy:     opener(f.GetOpenedBy()).String(),
		Local:        newEndJSON(f.GetLocal(), ports),
		Remote:       newEndJSON(f.GetRemote(), ports),
		TxBytes:      f.GetTotal().GetTxBytes(),
		TxPackets:    f.GetTotal().GetTxPackets(),
		RxBytes:      f.GetTotal().GetRxBytes(),
		RxPackets:    f.GetTotal().GetRxPackets(),
		RTT:          f.GetHealth().GetRttUs(),
		MinRTT:       f.GetHealth().GetMinRttUs(),
		State:        f.GetState(),
		healthJSON:   newHealthJSON(f),
	}
	if l, r := f.GetTranslatedLocal(), f.GetTranslatedRemote(); l != nil && r != nil {
		j.Translated = &translatedJSON{newAddressJSON(l, ports), newAddressJSON(r, ports)}
	}
	if n, known := knownRetransmits(f); known {
		j.Retransmits = &n
	}
	if h := f.GetTls(); h != nil {
		j.TLS = &tlsJSON{h.GetServerName(), h.GetAlpn(), h.GetVersion(), h.GetEch()}
	}
	return j
}

func newEndJSON(e *orb8v1.End, hasPort bool) endJSON {
	j := endJSON{
		IP:         e.GetIp(),
		Namespace:  e.GetNamespace(),
		Pod:        e.GetPod(),
		PodUID:     e.GetPodUid(),
		Container:  e.GetContainer(),
		Node:       e.GetNode(),
		Zone:       e.GetZone(),
		Labels:     e.GetLabels(),
		Unit:       e.GetUnit(),
		Process:    e.GetProcess(),
		PID:        e.GetPid(),
		Class:      e.GetClass(),
		Service:    e.GetService(),
		FQDN:       e.GetFqdn(),
		FQDNSource: e.GetFqdnSource(),
	}
	if hasPort {
		port := e.GetPort()
		j.Port = &port
	}
	j.Workload = newWorkloadJSON(e.GetWorkload())
	return j
}

func newAddressJSON(e *orb8v1.End, hasPort bool) addressJSON {
	j := addressJSON{IP: e.GetIp()}
	if hasPort {
		port := e.GetPort()
		j.Port = &port
	}
	return j
}

// newWorkloadJSON is nil where it is not known.
func newWorkloadJSON(w *orb8v1.Workload) *workloadJSON {
	if w.GetName() == "" {
		return nil
	}
	return &workloadJSON{w.GetKind(), w.GetName()}
}
