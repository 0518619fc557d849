package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"gatehouse.dev/gatehouse/gateway/config"
	"gatehouse.dev/gatehouse/gateway/exchange"
	"gatehouse.dev/gatehouse/gateway/snapshot"
)

type explainOptions struct {
	config  []string
	state   string
	headers []string
	output  string
	losers  int
}

func explainCommand() *cobra.Command {
	o := &explainOptions{}
	c := &cobra.Command{
		Use:   "explain --config DIR METHOD URL",
		Short: "Say where a request goes, and why",
		Long: "Says which listener, route, rule and backends a request gets, which filters touch it, and for the closest losers why they\n" +
			"lost. It decides by the code that serves requests. With -H 'Host: NAME' the request may name another host than the URL.",
		Example: "  gatehouse explain --config deploy/examples/bookinfo GET http://localhost:8080/productpage -H 'x-user: jason'",
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return explain(cmd, o, args[0], args[1])
		},
	}
	f := c.Flags()
	f.StringSliceVar(&o.config, "config", nil, "folder or file with Kubernetes objects in YAML or JSON; may be repeated")
	f.StringVar(&o.state, "state", "", "folder of the development CA, as for run")
	f.StringArrayVarP(&o.headers, "header", "H", nil, "request header 'name: value'; may be repeated")
	f.StringVarP(&o.output, "output", "o", "text", "text or json")
	f.IntVar(&o.losers, "losers", 5, "how many of the closest losers to list")
	if err := c.MarkFlagRequired("config"); err != nil {
		panic(err) // the flag is defined above
	}
	return c
}

func explain(cmd *cobra.Command, o *explainOptions, method, rawURL string) error {
	head, port, err := requestHead(method, rawURL, o.headers)
	if err != nil {
		return err
	}
	report, err := inspect(cmd.Context(), o.config, o.state)
	if err != nil {
		return err
	}
	defer report.close()
	decision, err := report.engine.Explain(port, head, o.losers)
	if err != nil {
		return err
	}
	switch o.output {
	case "json":
		enc := json.NewEncoder(cmd.OutOrStdout())
		enc.SetIndent("", "  ")
		return enc.Encode(decision)
	case "text":
		return printDecision(cmd.OutOrStdout(), method+" "+rawURL, decision, len(report.problems))
	}
	return fmt.Errorf("--output is %q; it must be text or json", o.output)
}

// requestHead makes the head that a client would send for a URL. The target keeps the URL's bytes.
func requestHead(method, rawURL string, headers []string) (*exchange.Head, uint16, error) {
	scheme, rest, ok := strings.Cut(rawURL, "://")
	scheme = strings.ToLower(scheme)
	if !ok || scheme != "http" && scheme != "https" {
		return nil, 0, fmt.Errorf("URL %q must begin with http:// or https://", rawURL)
	}
	parsed, err := url.Parse(scheme + "://" + authorityOf(rest))
	if err != nil {
		return nil, 0, fmt.Errorf("URL %q: %w", rawURL, err)
	}
	if parsed.Hostname() == "" {
		return nil, 0, fmt.Errorf("URL %q names no host", rawURL)
	}
	port := uint64(80)
	if scheme == "https" {
		port = 443
	}
	if text := parsed.Port(); text != "" {
		if port, err = strconv.ParseUint(text, 10, 16); err != nil || port == 0 {
			return nil, 0, fmt.Errorf("URL %q: the port must be between 1 and 65535", rawURL)
		}
	}
	target, _, _ := strings.Cut(rest[len(authorityOf(rest)):], "#")
	if !strings.HasPrefix(target, "/") {
		target = "/" + target
	}
	head := &exchange.Head{Method: method, Scheme: scheme, Authority: parsed.Host, Target: target}
	for _, line := range headers {
		name, value, ok := strings.Cut(line, ":")
		if !ok || strings.TrimSpace(name) == "" {
			return nil, 0, fmt.Errorf("header %q must be 'name: value'", line)
		}
		if strings.EqualFold(name, "host") {
			head.Authority = strings.TrimSpace(value)
			continue
		}
		head.Fields.Add(strings.TrimSpace(name), strings.TrimSpace(value))
	}
	return head, uint16(port), nil
}

func authorityOf(rest string) string {
	if end := strings.IndexAny(rest, "/?#"); end >= 0 {
		return rest[:end]
	}
	return rest
}

func printDecision(out io.Writer, request string, d *snapshot.Decision, problems int) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	row := func(name, format string, args ...any) { _, _ = fmt.Fprintf(w, name+"\t"+format+"\n", args...) }
	row("request", "%s", request)
	row("socket", "%s", d.Socket)
	if d.Listener != nil {
		row("listener", "%s %s, %s%s", d.Listener, d.Listener.Rule, hostText(d.ListenerHostname), at(*d.Listener))
		for _, f := range d.ListenerFilters {
			row("filter", "%s, before the route is chosen, which does not take into account what it changes", f)
		}
	}
	if d.Refused != nil {
		row("answer", "%d %s: %s", d.Refused.Status, d.Refused.Kind, d.Refused.Detail)
	}
	if r := d.Rule; r != nil {
		row("route", "%s%s", r.Route, at(r.Route))
		row("rule", "%s, %s", r.Rule, r.Match)
		for _, f := range r.Filters {
			row("filter", "%s", f)
		}
		printTimes(row, r)
		if len(r.Backends) == 0 {
			row("backend", "none")
		}
		for _, b := range r.Backends {
			row("backend", "%s", backendText(b))
			for _, f := range b.Filters {
				row("", "%s", f)
			}
		}
	}
	for _, l := range d.Losers {
		row("not", "%s rule %s: %s%s", l.Route, l.Rule, l.Detail, at(l.Route))
	}
	if problems > 0 {
		row("note", "%d problems in the configuration; `gatehouse validate` lists them", problems)
	}
	return w.Flush()
}

func printTimes(row func(string, string, ...any), r *snapshot.RuleDecision) {
	if r.RequestTimeout != "" {
		row("timeout", "request %s", r.RequestTimeout)
	}
	if r.BackendTimeout != "" {
		row("timeout", "each attempt %s", r.BackendTimeout)
	}
	if r.Retries > 0 {
		row("retry", "up to %d more attempts", r.Retries)
	}
}

func backendText(b snapshot.BackendDecision) string {
	share := fmt.Sprintf("%.4g%% ", b.Percent)
	switch {
	case b.Invalid != "":
		return share + "is answered 500: " + b.Invalid
	case len(b.Endpoints) == 0:
		return share + b.Cluster + ", no ready endpoint (503)"
	}
	return share + b.Cluster + " at " + strings.Join(b.Endpoints, ", ")
}

func hostText(hostname string) string {
	if hostname == "" {
		return "every host"
	}
	return "host " + hostname
}

func at(o config.Origin) string {
	if o.File == "" {
		return ""
	}
	return fmt.Sprintf(" (%s:%d)", o.File, o.Line)
}
