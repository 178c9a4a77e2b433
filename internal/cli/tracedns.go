// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
)

// lookupFlags are which look-ups orb8 trace dns shows. They are evaluated where
// the data is.
type lookupFlags struct {
	include, exclude orb8v1.DnsFilter
	slower           time.Duration
	side             sideFlag
}

func (a *app) traceDNS() *cobra.Command {
	f := traceFlags{kinds: []orb8v1.EventKind{orb8v1.EventKind_EVENT_KIND_DNS}, interval: agentEpoch, lookups: &lookupFlags{}}
	cmd := &cobra.Command{
		Use:   "dns",
		Short: "Look-ups in the DNS as they end: the name, the answer, how long it took",
		Long: `trace dns prints a line for each look-up that was answered, or given up (TIMEOUT):
LATENCY is from the first question to the answer, however often it was asked again.
ANSWERS are addresses and, of a CNAME, names. With --side server it shows what servers
on the nodes answered; with -o wide also whether they asked others for it (UPSTREAM).
It goes on until interrupted (Ctrl-C), or for --duration. What was asked before is
summed up by: orb8 dns`,
		Example: `  orb8 trace dns -n shop --duration 30s
  orb8 trace dns --name '*.amazonaws.com' --slower-than 20ms
  orb8 trace dns --not-rcode NOERROR,NXDOMAIN -o wide
  orb8 trace dns -o json | jq -c '[.client.pod, .name, .rcode, .latency_ns]'`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if f.lookups.slower < 0 || f.lookups.slower == 0 && cmd.Flags().Changed("slower-than") {
				return usagef("--slower-than %v: allowed are times above 0, as 20ms or 1s", f.lookups.slower)
			}
			return a.runTrace(cmd.Context(), &f)
		},
	}
	f.addDuration(cmd)
	cmd.Flags().DurationVar(&f.lookups.slower, "slower-than", 0, "only what was answered after more than this `TIME`, or never")
	f.lookups.side.add(cmd)
	f.output.add(cmd)
	addFilters(cmd, lookupFilters(&f.lookups.include), lookupFilters(&f.lookups.exclude))
	f.filter.add(cmd)
	return cmd
}

func lookupFilters(f *orb8v1.DnsFilter) []filterFlag {
	return []filterFlag{
		{name: "name", help: "look-ups of these names, `GLOB` as *.example.com", list: texts(&f.Names, parseGlob)},
		{name: "rcode", help: "look-ups with these answers, `RCODE`: NOERROR, NXDOMAIN, SERVFAIL, TIMEOUT, ...", list: texts(&f.Rcodes, parseRCode), allowed: rcodes()},
		{name: "type", help: "look-ups of these `TYPE`s of records: A, AAAA, SRV, ...", list: texts(&f.Types, parseRecordType), allowed: recordTypes()},
	}
}

// ask puts the flags into a question.
func (f *lookupFlags) ask(q *orb8v1.EventsRequest) {
	f.include.SlowerThanNs = int64(f.slower)
	f.include.Sides = f.side.sides()
	q.IncludeDns, q.ExcludeDns = &f.include, &f.exclude
}

// rcodes are the names of response codes, those that one meets first.
func rcodes() []string {
	return []string{
		"NOERROR", "NXDOMAIN", "SERVFAIL", "TIMEOUT", "UNREACHABLE", "REFUSED", "FORMERR", "NOTIMP", "YXDOMAIN", "YXRRSET", "NXRRSET", "NOTAUTH", "NOTZONE",
		"DSOTYPENI", "BADVERS", "BADKEY", "BADTIME", "BADMODE", "BADNAME", "BADALG", "BADTRUNC", "BADCOOKIE",
	}
}

// recordTypes are the names of types of records, those that one meets first.
func recordTypes() []string {
	return []string{
		"A", "AAAA", "CNAME", "PTR", "SRV", "HTTPS", "TXT", "NS", "SOA", "MX", "SVCB", "ANY", "NULL", "HINFO", "RP", "AFSDB", "SIG", "KEY",
		"LOC", "NAPTR", "KX", "CERT", "DNAME", "OPT", "APL", "DS", "SSHFP", "IPSECKEY", "RRSIG", "NSEC", "DNSKEY", "DHCID", "NSEC3",
		"NSEC3PARAM", "TLSA", "SMIMEA", "HIP", "CDS", "CDNSKEY", "OPENPGPKEY", "CSYNC", "ZONEMD", "SPF", "EUI48", "EUI64", "TKEY", "TSIG",
		"IXFR", "AXFR", "MAILB", "MAILA", "URI", "CAA",
	}
}

func parseRCode(s string) (string, error) {
	if w, ok := word(s, rcodes(), "RCODE", 1<<12-1); ok {
		return w, nil
	}
	return "", fmt.Errorf("not a response code%s: allowed are %s and RCODE0 to RCODE4095", meant(strings.ToUpper(s), rcodes()), strings.Join(rcodes(), ", "))
}

func parseRecordType(s string) (string, error) {
	if w, ok := word(s, recordTypes(), "TYPE", 1<<16-1); ok {
		return w, nil
	}
	return "", fmt.Errorf("not a type of record: allowed are %s, ..., and TYPE0 to TYPE65535", strings.Join(recordTypes()[:12], ", "))
}

// word is one of those that are known, or the prefix and a number up to most.
func word(s string, known []string, prefix string, most uint64) (string, bool) {
	s = strings.ToUpper(s)
	if slices.Contains(known, s) {
		return s, true
	}
	digits, ok := strings.CutPrefix(s, prefix)
	n, err := strconv.ParseUint(digits, 10, 16)
	if !ok || err != nil || n > most || digits != strconv.FormatUint(n, 10) {
		return "", false
	}
	return s, true
}
