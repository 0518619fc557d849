package routing

import (
	"slices"
	"strings"
	"testing"
)

func TestExplain(t *testing.T) {
	table := compile(t,
		on(exact("/a/b"), "shop.test"),                            // 0
		on(regex("/a/.+"), "shop.test"),                           // 1
		on(prefix("/a").method("GET"), "shop.test"),               // 2
		on(prefix("/a").header("x-a", "1"), "shop.test"),          // 3
		on(prefix("/a").query("q", "1"), "shop.test"),             // 4
		on(prefix("/a"), "shop.test"),                             // 5
		on(prefix("/a"), "shop.test"),                             // 6
		on(prefix("/"), "*.test"),                                 // 7
		on(prefix("/a").method("POST"), "shop.test"),              // 8
		on(prefix("/a").header("x-b", "2"), "shop.test"),          // 9
		on(prefix("/a").headerRegex("x-a", "2|3"), "shop.test"),   // 10
		on(prefix("/a").query("q", "2"), "shop.test"),             // 11
		on(prefix("/a").query("r", "2"), "shop.test"),             // 12
		on(prefix("/a/c"), "shop.test"),                           // 13
		on(exact("/b"), "shop.test"),                              // 14
		on(prefix("/"), "other.test", "shop.example", "a.b.c"),    // 15
		on(prefix("/"), "nothing.alike"),                          // 16
		on(prefix("/a").header("x-a", "1").header("x-c", "1")),    // 17
		on(prefix("/a").query("q", "1").query("r", "1"), "*.net"), // 18
	)
	h := request(t, "GET", "shop.test/a/b?q=1", "x-a: 1")
	type want struct {
		reason, host, detail string
	}
	wants := map[int]want{
		0:  {ReasonWon, "shop.test", "Exact /a/b on hostname shop.test"},
		1:  {ReasonPrecedence, "shop.test", "RegularExpression /a/.+ is less specific than Exact /a/b"},
		2:  {ReasonPrecedence, "shop.test", "PathPrefix /a is less specific than Exact /a/b"},
		3:  {ReasonPrecedence, "shop.test", "PathPrefix /a is less specific than Exact /a/b"},
		7:  {ReasonPrecedence, "*.test", "hostname *.test is less specific than hostname shop.test"},
		8:  {ReasonMethod, "shop.test", `method is "GET", the rule wants "POST"`},
		9:  {ReasonHeader, "shop.test", `header x-b is absent, the rule wants the value "2"`},
		10: {ReasonHeader, "shop.test", `header x-a is "1", the rule wants a match of "2|3"`},
		11: {ReasonQuery, "shop.test", `query parameter q is "1", the rule wants the value "2"`},
		12: {ReasonQuery, "shop.test", `query parameter r is absent, the rule wants the value "2"`},
		13: {ReasonPath, "shop.test", `path "/a/b" does not match PathPrefix /a/c`},
		14: {ReasonPath, "shop.test", `path "/a/b" does not match Exact /b`},
		15: {ReasonHost, "other.test", `host "shop.test" does not match "other.test"`},
		16: {ReasonHost, "nothing.alike", `host "shop.test" does not match "nothing.alike"`},
		17: {ReasonHeader, "", "header x-c is absent"},
	}
	verdicts := table.Explain(h, 100)
	var order []int
	for _, v := range verdicts {
		order = append(order, v.Value)
		w, ok := wants[v.Value]
		if ok && (v.Reason != w.reason || v.Host != w.host || !strings.Contains(v.Detail, w.detail)) {
			t.Errorf("rule %d: %+v, want %+v", v.Value, v, w)
		}
	}
	wantOrder := []int{
		0, 1, 2, 3, 4, 5, 6, 7, // match too: by host, then precedence
		11, 12, // query
		9, 10, 17, // header, by host
		8,      // method
		13, 14, // path, by what is common
		15, 18, 16, // host, by what is common
	}
	// 18 stands under *.net, which has less in common with shop.test than other.test, and more than nothing.alike.
	if !slices.Equal(order[:16], wantOrder[:16]) || len(order) != len(wantOrder) {
		t.Errorf("order %v, want %v", order, wantOrder)
	}
	if got := table.Explain(h, 3); len(got) != 3 || !slices.Equal(got, verdicts[:3]) {
		t.Errorf("Explain(h, 3) = %+v", got)
	}
	if got := table.Explain(h, 0); got != nil {
		t.Errorf("Explain(h, 0) = %+v", got)
	}
}

// TestExplainPrecedence has for each step of the precedence the words that say why the second rule lost.
func TestExplainPrecedence(t *testing.T) {
	tests := map[string]struct {
		winner, loser Rule[int]
		want          string
	}{
		"host":        {on(prefix("/a"), "b.a.test"), on(prefix("/a")), "no hostname is less specific than hostname b.a.test"},
		"path":        {on(prefix("/a")), on(prefix("/")), "PathPrefix / is less specific than PathPrefix /a"},
		"method":      {on(prefix("/a").method("GET")), on(prefix("/a")), "it names no method, the winner names GET"},
		"headers":     {on(prefix("/a").header("x-a", "1")), on(prefix("/a")), "it matches on 0 headers, the winner on 1"},
		"query":       {on(prefix("/a").query("q", "1")), on(prefix("/a")), "it matches on 0 query parameters, the winner on 1"},
		"order":       {on(prefix("/a")), on(prefix("/a/")), "stands earlier"},
		"specificity": {on(prefix("/a").specific(2)), on(exact("/a").specific(1)), "Exact /a is less specific than PathPrefix /a"},
		"headers of equal specificity": {on(prefix("/a").specific(2).header("x-a", "1")), on(exact("/a").specific(2)),
			"it matches on 0 headers, the winner on 1"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			table := compile(t, test.winner, test.loser)
			verdicts := table.Explain(request(t, "GET", "b.a.test/a?q=1", "x-a: 1"), 2)
			if len(verdicts) != 2 || !verdicts[0].Won || verdicts[0].Value != 0 {
				t.Fatalf("verdicts %+v", verdicts)
			}
			if v := verdicts[1]; v.Reason != ReasonPrecedence || !strings.Contains(v.Detail, test.want) {
				t.Errorf("%+v, want %q", v, test.want)
			}
		})
	}
}

// A rule with several hostnames gets one verdict, on the one that came closest.
func TestExplainSeveralHosts(t *testing.T) {
	table := compile(t, on(prefix("/a"), "*.test", "a.test", "other"), on(prefix("/b"), "other", "*.test"))
	verdicts := table.Explain(request(t, "GET", "a.test/a"), 10)
	if len(verdicts) != 2 {
		t.Fatalf("verdicts %+v", verdicts)
	}
	if v := verdicts[0]; !v.Won || v.Host != "a.test" {
		t.Errorf("winner %+v", v)
	}
	if v := verdicts[1]; v.Reason != ReasonPath || v.Host != "*.test" {
		t.Errorf("loser %+v", v)
	}
}
