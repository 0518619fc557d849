package metrics

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"gatehouse.dev/gatehouse/gateway/exchange"
)

func newSet(t testing.TB, o Options) *Set {
	t.Helper()
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// samples returns the gatehouse_ samples whose name begins so, as the text format writes them, sorted.
func samples(t testing.TB, s *Set, prefix string) []string {
	t.Helper()
	server := httptest.NewServer(s.Handler())
	defer server.Close()
	resp, err := http.Get(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("scrape: status %d, error %v, body %s", resp.StatusCode, err, body)
	}
	var out []string
	for line := range strings.Lines(string(body)) {
		if strings.HasPrefix(line, "gatehouse_"+prefix) {
			out = append(out, strings.TrimSuffix(line, "\n"))
		}
	}
	slices.Sort(out)
	return out
}

func want(t testing.TB, s *Set, prefix string, lines ...string) {
	t.Helper()
	slices.Sort(lines)
	if diff := cmp.Diff(lines, samples(t, s, prefix)); diff != "" {
		t.Errorf("samples of %s (-want +got):\n%s", prefix, diff)
	}
}

func ref(route, rule string) *exchange.RouteRef { return &exchange.RouteRef{Route: route, Rule: rule} }

func TestRequestsAreCountedByRouteRuleClusterAndClass(t *testing.T) {
	s := newSet(t, Options{})
	first, second := s.Handles(ref("HTTPRoute/a/shop", "0"), "Service/a/cart/80"), s.Handles(ref("HTTPRoute/a/shop", "1"), "Service/a/cart/80")
	first.Observe(200, 3*time.Millisecond, 10, 100)
	first.Observe(204, 700*time.Microsecond, 0, 0)
	second.Observe(503, 2*time.Minute, 5, 7)
	s.End(&exchange.Exchange{Resp: exchange.Response{Status: 404}, Fault: exchange.NewFault(exchange.NoRoute, nil)}, nil, time.Millisecond)
	s.End(&exchange.Exchange{Fault: exchange.NewFault(exchange.ClientAborted, nil)}, nil, -time.Second)

	want(t, s, "requests_total",
		`gatehouse_requests_total{cluster="Service/a/cart/80",code_class="2xx",route="HTTPRoute/a/shop",rule="0"} 2`,
		`gatehouse_requests_total{cluster="Service/a/cart/80",code_class="5xx",route="HTTPRoute/a/shop",rule="1"} 1`,
		`gatehouse_requests_total{cluster="-",code_class="4xx",route="-",rule="-"} 1`,
		`gatehouse_requests_total{cluster="-",code_class="-",route="-",rule="-"} 1`)
	want(t, s, "request_bytes_total",
		`gatehouse_request_bytes_total{cluster="Service/a/cart/80",route="HTTPRoute/a/shop"} 15`,
		`gatehouse_request_bytes_total{cluster="-",route="-"} 0`)
	want(t, s, "response_bytes_total",
		`gatehouse_response_bytes_total{cluster="Service/a/cart/80",route="HTTPRoute/a/shop"} 107`,
		`gatehouse_response_bytes_total{cluster="-",route="-"} 0`)
	want(t, s, "faults_total", `gatehouse_faults_total{kind="no_route"} 1`, `gatehouse_faults_total{kind="client_aborted"} 1`)
	got := strings.Join(samples(t, s, "request_duration_seconds"), "\n")
	for _, line := range []string{
		`_bucket{cluster="Service/a/cart/80",route="HTTPRoute/a/shop",le="0.0005"} 0`,
		`_bucket{cluster="Service/a/cart/80",route="HTTPRoute/a/shop",le="0.001"} 1`,
		`_bucket{cluster="Service/a/cart/80",route="HTTPRoute/a/shop",le="0.005"} 2`,
		`_bucket{cluster="Service/a/cart/80",route="HTTPRoute/a/shop",le="60"} 2`,
		`_bucket{cluster="Service/a/cart/80",route="HTTPRoute/a/shop",le="+Inf"} 3`,
		`_sum{cluster="Service/a/cart/80",route="HTTPRoute/a/shop"} 120.0037`,
		`_count{cluster="Service/a/cart/80",route="HTTPRoute/a/shop"} 3`,
		`_sum{cluster="-",route="-"} 0.001`,
	} {
		if !strings.Contains(got, line) {
			t.Errorf("no sample %s in\n%s", line, got)
		}
	}
}

func TestHandlesSurviveUntilSwept(t *testing.T) {
	s := newSet(t, Options{})
	stays, goes := s.Handles(ref("r", "0"), "stays"), s.Handles(ref("r", "0"), "goes")
	if again := s.Handles(ref("r", "0"), "stays"); again != stays {
		t.Error("the same names gave other handles")
	}
	stays.Observe(200, 0, 0, 0)
	goes.Observe(200, 0, 0, 0)
	for _, h := range []*Handles{stays, goes} {
		h.Cluster().Begin()
		h.Cluster().End()
	}
	s.UpstreamConnections("goes", 1)
	s.Sweep(slices.Values([]*Handles{stays, nil}))
	goes.Observe(200, 0, 0, 0) // an exchange of the old snapshot
	want(t, s, "requests_total", `gatehouse_requests_total{cluster="stays",code_class="2xx",route="r",rule="0"} 1`)
	want(t, s, "label_sets", `gatehouse_label_sets 1`, `gatehouse_label_sets_overflow_total 0`)
	want(t, s, "upstream_connections{", // with a connection open the cluster stays
		`gatehouse_upstream_connections{cluster="goes"} 1`, `gatehouse_upstream_connections{cluster="stays"} 0`)
	s.UpstreamConnections("goes", -1)
	s.Sweep(slices.Values([]*Handles{stays}))
	want(t, s, "upstream_", `gatehouse_upstream_connections{cluster="stays"} 0`, `gatehouse_upstream_connections_total{cluster="stays"} 0`,
		`gatehouse_upstream_requests_active{cluster="stays"} 0`, `gatehouse_upstream_attempts_total{cluster="stays"} 1`)
	if again := s.Handles(ref("r", "0"), "goes"); again == goes {
		t.Error("swept handles came back")
	}
}

func TestLabelSetsAreCapped(t *testing.T) {
	s := newSet(t, Options{MaxLabelSets: 3})
	for i := range 10 {
		s.Handles(ref(fmt.Sprint("r", i), "0"), fmt.Sprint("c", i)).Observe(200, 0, 0, 0)
		s.UpstreamConnections(fmt.Sprint("d", i), 1)
	}
	got := samples(t, s, "requests_total")
	if len(got) != 4 || !slices.Contains(got, `gatehouse_requests_total{cluster="other",code_class="2xx",route="other",rule="other"} 7`) {
		t.Errorf("samples: %q", got)
	}
	want(t, s, "label_sets", `gatehouse_label_sets 3`, `gatehouse_label_sets_overflow_total 7`)
	want(t, s, "upstream_connections{", // c0, d0 and c1 are the three
		`gatehouse_upstream_connections{cluster="d0"} 1`, `gatehouse_upstream_connections{cluster="other"} 9`)
	// Room that a sweep makes is used again.
	s.Sweep(maps.Keys(map[*Handles]bool{}))
	if h := s.Handles(ref("late", "0"), "c"); h == s.routes.other {
		t.Error("no room after a sweep")
	}
}

func TestActive(t *testing.T) {
	s := newSet(t, Options{})
	h, bind := s.Handles(ref("r", "0"), "c"), s.Bind("*:80")
	h.Enter()
	bind.Begin(exchange.HTTP2)
	bind.Begin(200) // a protocol that is none
	bind.End(200)
	bind.Connections(exchange.HTTP2, 1)
	h.Cluster().Begin()
	want(t, s, "requests_active", `gatehouse_requests_active{cluster="c",route="r"} 1`)
	want(t, s, "downstream_", `gatehouse_downstream_requests_active{bind="*:80",protocol="HTTP/2"} 1`,
		`gatehouse_downstream_requests_active{bind="*:80",protocol="unknown"} 0`,
		`gatehouse_downstream_connections{bind="*:80",protocol="HTTP/2"} 1`,
		`gatehouse_downstream_connections_total{bind="*:80",protocol="HTTP/2"} 1`)
	want(t, s, "upstream_requests_active", `gatehouse_upstream_requests_active{cluster="c"} 1`)
	h.Leave()
	h.Observe(200, 0, 0, 0)
	s.RemoveBind("*:80")
	want(t, s, "requests_active", `gatehouse_requests_active{cluster="c",route="r"} 0`)
	want(t, s, "downstream_")
}

func TestConfigState(t *testing.T) {
	s := newSet(t, Options{Version: "v1.2.3"})
	want(t, s, "config_", `gatehouse_config_applies_total{result="success"} 0`, `gatehouse_config_applies_total{result="failure"} 0`)
	s.ConfigApplied("one", time.UnixMilli(1_500), 2*time.Millisecond)
	s.ConfigApplied("two", time.UnixMilli(2_500), 3*time.Millisecond)
	s.ConfigRejected()
	s.SetProblems(map[string]int{"InvalidRule": 3, "Duplicate": 1})
	s.SetProblems(map[string]int{"InvalidRule": 2, "\xff": 1})
	want(t, s, "config_applies", `gatehouse_config_applies_total{result="success"} 2`, `gatehouse_config_applies_total{result="failure"} 1`)
	want(t, s, "config_info", `gatehouse_config_info{version="two"} 1`)
	want(t, s, "config_apply_", `gatehouse_config_apply_timestamp_seconds 2.5`, `gatehouse_config_apply_duration_seconds 0.003`)
	want(t, s, "problems", `gatehouse_problems{reason="InvalidRule"} 2`, "gatehouse_problems{reason=\"\uFFFD\"} 1")
	if got := samples(t, s, "config_age_seconds"); len(got) != 1 {
		t.Errorf("age: %q", got)
	}
	if got := samples(t, s, "build_info"); len(got) != 1 || !strings.Contains(got[0], `version="v1.2.3"`) {
		t.Errorf("build info: %q", got)
	}
}

func TestNamesThatAreNotUTF8DoNotBreakTheScrape(t *testing.T) {
	s := newSet(t, Options{})
	s.Handles(ref("r\xff", ""), "c\xfe").Observe(200, 0, 0, 0)
	s.Bind("\xff").Connections(exchange.HTTP11, 1)
	s.Fault("\xff")
	want(t, s, "requests_total", "gatehouse_requests_total{cluster=\"c\uFFFD\",code_class=\"2xx\",route=\"r\uFFFD\",rule=\"-\"} 1")
}

func TestFaultKindsAreCapped(t *testing.T) {
	s := newSet(t, Options{})
	for i := range 2 * maxKinds {
		s.Fault(exchange.Kind(fmt.Sprint("kind", i)))
	}
	if got := samples(t, s, "faults_total"); len(got) != maxKinds+1 {
		t.Errorf("%d kinds", len(got))
	}
}

// TestConcurrentUse is for the race detector, and holds that nothing is counted twice or lost.
func TestConcurrentUse(t *testing.T) {
	s := newSet(t, Options{})
	const workers, rounds = 4, 500
	h := s.Handles(ref("r", "0"), "c")
	var all sync.WaitGroup
	for w := range workers {
		all.Go(func() {
			for i := range rounds {
				bind := s.Bind(fmt.Sprint("*:", i%3))
				bind.Begin(exchange.HTTP11)
				h.Observe(200, time.Millisecond, 1, 1)
				s.Handles(ref(fmt.Sprint("r", w, i), "0"), "x").Observe(500, 0, 0, 0)
				s.UpstreamConnections("c", 1)
				s.Sweep(slices.Values([]*Handles{h}))
				s.UpstreamConnections("c", -1)
				bind.End(exchange.HTTP11)
			}
		})
	}
	for range 5 {
		samples(t, s, "")
	}
	all.Wait()
	want(t, s, "requests_total{", fmt.Sprintf(`gatehouse_requests_total{cluster="c",code_class="2xx",route="r",rule="0"} %d`, workers*rounds))
	want(t, s, "upstream_connections{", `gatehouse_upstream_connections{cluster="c"} 0`)
	for _, line := range samples(t, s, "downstream_requests_active") {
		if !strings.HasSuffix(line, " 0") {
			t.Error(line)
		}
	}
}
