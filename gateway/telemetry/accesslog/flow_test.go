package accesslog

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"gatehouse.dev/gatehouse/gateway/exchange"
)

// flowReference is a flow's line as slog's JSON handler writes it.
func flowReference(t testing.TB, f *exchange.Flow, took time.Duration) []byte {
	t.Helper()
	var out bytes.Buffer
	flag, ref := "-", exchange.RouteRef{}
	if f.Fault != nil {
		flag = string(f.Fault.Kind)
	}
	if f.Route != nil {
		ref = *f.Route
	}
	line := slog.NewRecord(f.Start, slog.LevelInfo, "stream", 0)
	line.AddAttrs(
		slog.Int64("duration_us", took.Microseconds()), slog.String("flag", flag), slog.String("protocol", f.Peer.Proto.String()),
		slog.String("listener", f.Listener), slog.String("server_name", cut(f.ServerName(), maxText)),
		slog.Int64("bytes_in", f.BytesIn), slog.Int64("bytes_out", f.BytesOut), slog.String("route", ref.Route), slog.String("rule", ref.Rule),
		slog.String("cluster", f.Cluster), slog.String("endpoint", f.Endpoint), slog.Int("attempts", f.Attempts), slog.String("bind", f.Peer.Bind),
		slog.String("client", f.Peer.Remote.String()), slog.String("trace_id", f.TraceID),
	)
	if f.Fault != nil && f.Fault.Err != nil {
		line.AddAttrs(slog.String("detail", cut(f.Fault.Err.Error(), maxDetail)))
	}
	if err := slog.NewJSONHandler(&out, nil).Handle(context.Background(), line); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestFlowLine(t *testing.T) {
	client := netip.MustParseAddrPort("192.0.2.7:4711")
	for name, f := range map[string]*exchange.Flow{
		"whole": {
			Peer:     exchange.Peer{Bind: "*:443", Proto: exchange.TLS, Remote: client, TLS: &exchange.TLSInfo{ServerName: "db.example"}},
			Listener: "ns/gw/db", Start: time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC), Route: &exchange.RouteRef{Route: "TLSRoute/ns/db", Rule: "0"},
			Cluster: "Service/ns/db/5432", Endpoint: "10.0.0.1:5432", Attempts: 2, BytesIn: 1 << 40, BytesOut: 3, TraceID: "4bf92f3577b34da6a3ce929d0e0e4736",
		},
		"nothing known": {Peer: exchange.Peer{Bind: "*:53/udp", Proto: exchange.UDP, Remote: client}, Start: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)},
		"hostile name": {
			Peer:  exchange.Peer{Proto: exchange.TLS, Remote: client, TLS: &exchange.TLSInfo{ServerName: "a\"\n\x00\xff<"}},
			Start: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Fault: exchange.NewFault(exchange.NoRoute, errors.New("no \"route\"\n\x00 here")),
		},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			log := open(t, Options{Writer: &out})
			log.RecordFlow(f, 1500*time.Microsecond)
			closeLog(t, log)
			if !json.Valid(out.Bytes()) {
				t.Fatalf("not JSON: %q", out.String())
			}
			if diff := cmp.Diff(tokens(t, flowReference(t, f, 1500*time.Microsecond)), tokens(t, out.Bytes())); diff != "" {
				t.Errorf("unlike slog's line (-want +got):\n%s", diff)
			}
		})
	}
}

// TestRecordFlowAllocatesNothing: whoever serves flows pays for no memory.
func TestRecordFlowAllocatesNothing(t *testing.T) {
	var b batch
	f := &exchange.Flow{Peer: exchange.Peer{TLS: &exchange.TLSInfo{ServerName: "db.example"}}}
	if n := testing.AllocsPerRun(100, func() {
		b.records, b.text = b.records[:0], b.text[:0]
		clear(b.records[:cap(b.records)])
		b.addFlow(f, time.Second, "")
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}
