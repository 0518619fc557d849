package metrics

import (
	"slices"
	"testing"
	"time"

	"gatehouse.dev/gatehouse/gateway/exchange"
)

func TestFlows(t *testing.T) {
	s := newSet(t, Options{})
	h := s.FlowHandles(exchange.TCP, "ns/gw/db", ref("TCPRoute/ns/db", "0"), "Service/ns/db/5432")
	if s.FlowHandles(exchange.TCP, "ns/gw/db", ref("TCPRoute/ns/db", "0"), "Service/ns/db/5432") != h {
		t.Error("the same names gave other handles")
	}
	s.FlowHandles(exchange.TCP, "ns/gw/db", nil, "") // saw nothing: shows nothing
	for range 3 {
		h.Begin()
	}
	h.Moved(10, 20)
	h.Moved(0, 5)
	h.End(&exchange.Flow{}, 90*time.Second)
	h.End(&exchange.Flow{Fault: exchange.NewFault(exchange.UpstreamReset, nil)}, 5*time.Millisecond)
	const labels = `cluster="Service/ns/db/5432",listener="ns/gw/db",protocol="TCP"`
	const rest = `route="TCPRoute/ns/db",rule="0"`
	want(t, s, "streams_",
		`gatehouse_streams_total{`+labels+`,result="failure",`+rest+`} 1`, `gatehouse_streams_total{`+labels+`,result="success",`+rest+`} 1`,
		`gatehouse_streams_active{`+labels+`,`+rest+`} 1`)
	want(t, s, "stream_received", `gatehouse_stream_received_bytes_total{`+labels+`,`+rest+`} 10`)
	want(t, s, "stream_sent", `gatehouse_stream_sent_bytes_total{`+labels+`,`+rest+`} 25`)
	got := samples(t, s, "stream_duration_seconds")
	for _, line := range []string{
		`gatehouse_stream_duration_seconds_bucket{` + labels + `,` + rest + `,le="0.01"} 1`,
		`gatehouse_stream_duration_seconds_bucket{` + labels + `,` + rest + `,le="60"} 1`,
		`gatehouse_stream_duration_seconds_bucket{` + labels + `,` + rest + `,le="600"} 2`,
		`gatehouse_stream_duration_seconds_count{` + labels + `,` + rest + `} 2`,
	} {
		if !slices.Contains(got, line) {
			t.Errorf("no sample %s in %q", line, got)
		}
	}
}

func TestFlowsAreSweptAndCapped(t *testing.T) {
	s := newSet(t, Options{MaxLabelSets: 2})
	stays, goes := s.FlowHandles(exchange.UDP, "l", ref("r", "0"), "stays"), s.FlowHandles(exchange.UDP, "l", ref("r", "0"), "goes")
	over := s.FlowHandles(exchange.UDP, "l", ref("r", "0"), "over")
	for _, h := range []*FlowHandles{stays, goes, over} {
		h.Begin()
		h.Cluster().Begin()
		h.Cluster().End()
	}
	want(t, s, "streams_active",
		`gatehouse_streams_active{cluster="goes",listener="l",protocol="UDP",route="r",rule="0"} 1`,
		`gatehouse_streams_active{cluster="other",listener="other",protocol="other",route="other",rule="other"} 1`,
		`gatehouse_streams_active{cluster="stays",listener="l",protocol="UDP",route="r",rule="0"} 1`)
	s.SweepFlows(slices.Values([]*FlowHandles{stays}))
	s.Sweep(slices.Values([]*Handles{}))
	want(t, s, "upstream_attempts_total", `gatehouse_upstream_attempts_total{cluster="stays"} 1`, `gatehouse_upstream_attempts_total{cluster="other"} 1`)
	if s.FlowHandles(exchange.UDP, "l", ref("r", "0"), "goes") == goes {
		t.Error("swept handles came back")
	}
}
