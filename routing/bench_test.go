package routing

import (
	"fmt"
	"runtime"
	"strconv"
	"testing"

	"gatehouse.dev/gatehouse/gateway/exchange"
)

var sizes = []int{10, 100, 1_000, 5_000, 50_000}

// shape makes rules that differ in one respect, and requests for the i-th of them.
type shape struct {
	name    string
	rule    func(i int) Rule[int]
	request func(i int) *exchange.Head
}

var shapes = []shape{
	{"paths",
		func(i int) Rule[int] { return prefixRule([]string{"shop.test"}, "/api/service-"+strconv.Itoa(i)) },
		func(i int) *exchange.Head { return get("shop.test", "/api/service-"+strconv.Itoa(i)+"/items/42") }},
	{"hosts",
		func(i int) Rule[int] { return prefixRule([]string{"host-" + strconv.Itoa(i) + ".test"}, "/") },
		func(i int) *exchange.Head { return get("host-"+strconv.Itoa(i)+".test", "/items/42") }},
	{"hosts and paths",
		func(i int) Rule[int] {
			return prefixRule([]string{"host-" + strconv.Itoa(i/10) + ".test"}, "/service-"+strconv.Itoa(i))
		},
		func(i int) *exchange.Head {
			return get("host-"+strconv.Itoa(i/10)+".test", "/service-"+strconv.Itoa(i)+"/items/42")
		}},
	{"headers",
		func(i int) Rule[int] {
			r := prefixRule([]string{"shop.test"}, "/api")
			r.Match.Headers = []ValueMatch{{Name: "x-env", Value: "prod"}, {Name: "x-tenant", Value: "tenant-" + strconv.Itoa(i)}}
			return r
		},
		func(i int) *exchange.Head {
			return get("shop.test", "/api/items", "X-Tenant", "tenant-"+strconv.Itoa(i))
		}},
	{"query",
		func(i int) Rule[int] {
			r := prefixRule([]string{"shop.test"}, "/api")
			r.Match.Query = []ValueMatch{{Name: "tenant", Value: "tenant-" + strconv.Itoa(i)}}
			return r
		},
		func(i int) *exchange.Head {
			return get("shop.test", "/api/items?page=2&tenant=tenant-"+strconv.Itoa(i))
		}},
}

func prefixRule(hosts []string, path string) Rule[int] {
	return Rule[int]{Hosts: hosts, Match: Match{PathType: PathPrefix, Path: path}}
}

// get makes a request as a browser sends it, with further fields.
func get(host, target string, fields ...string) *exchange.Head {
	h := &exchange.Head{Method: "GET", Scheme: "https", Authority: host, Target: target}
	for _, name := range []string{"User-Agent", "Accept", "Accept-Language", "Accept-Encoding", "Cookie", "Sec-Fetch-Mode", "Referer"} {
		h.Fields.Add(name, "some value")
	}
	h.Fields.Add("X-Env", "prod")
	for i := 0; i < len(fields); i += 2 {
		h.Fields.Add(fields[i], fields[i+1])
	}
	if err := h.Normalize(); err != nil {
		panic(err)
	}
	return h
}

func (s shape) rules(n int) []Rule[int] {
	rules := make([]Rule[int], n)
	for i := range rules {
		rules[i] = s.rule(i)
		rules[i].Value = i
	}
	return rules
}

// BenchmarkFind finds among n rules, going round 100 of them that lie far apart: what a gateway is asked for in any one moment.
func BenchmarkFind(b *testing.B) {
	for _, s := range shapes {
		for _, n := range sizes {
			b.Run(fmt.Sprintf("%s/%d", s.name, n), func(b *testing.B) {
				table, err := Compile(s.rules(n))
				if err != nil {
					b.Fatal(err)
				}
				asked := min(n, 100)
				requests := make([]*exchange.Head, asked)
				for i := range requests {
					requests[i] = s.request(i * (n / asked))
				}
				b.ReportAllocs()
				i := 0
				for b.Loop() {
					if got, ok := table.Find(requests[i]); !ok || got != i*(n/asked) {
						b.Fatalf("request %d found %d, %v", i, got, ok)
					}
					if i++; i == asked {
						i = 0
					}
				}
			})
		}
	}
}

func BenchmarkCompile(b *testing.B) {
	for _, s := range shapes {
		for _, n := range []int{100, 5_000} {
			b.Run(fmt.Sprintf("%s/%d", s.name, n), func(b *testing.B) {
				rules := s.rules(n)
				b.ReportAllocs()
				for b.Loop() {
					if _, err := Compile(rules); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
	b.Run("recompile expressions/1000", func(b *testing.B) {
		rules := make([]Rule[int], 1000)
		for i := range rules {
			rules[i].Match = Match{PathType: PathRegex, Path: "/service-" + strconv.Itoa(i) + "/[0-9]+/.*"}
		}
		table, err := Compile(rules)
		if err != nil {
			b.Fatal(err)
		}
		for b.Loop() {
			if table, err = table.Recompile(rules); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkMemory reports what a table holds beyond the rules that it was made of.
func BenchmarkMemory(b *testing.B) {
	for _, s := range shapes {
		for _, n := range []int{1_000, 50_000} {
			b.Run(fmt.Sprintf("%s/%d", s.name, n), func(b *testing.B) {
				rules := s.rules(n)
				var bytes int64
				for b.Loop() {
					before := heap()
					table, _ := Compile(rules)
					bytes = heap() - before
					runtime.KeepAlive(table)
				}
				b.ReportMetric(float64(bytes)/float64(n), "B/rule")
				b.ReportMetric(0, "ns/op")
			})
		}
	}
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
