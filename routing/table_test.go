package routing

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"gatehouse.dev/gatehouse/gateway/exchange"
)

// compile makes a table of rules whose values are their indexes.
func compile(t testing.TB, rules ...Rule[int]) *Table[int] {
	t.Helper()
	for i := range rules {
		rules[i].Value = i
	}
	table, err := Compile(rules)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

// on makes a rule of a match and hosts.
func on(m Match, hosts ...string) Rule[int] { return Rule[int]{Hosts: hosts, Match: m} }

func prefix(path string) Match { return Match{PathType: PathPrefix, Path: path} }
func exact(path string) Match  { return Match{PathType: PathExact, Path: path} }
func regex(path string) Match  { return Match{PathType: PathRegex, Path: path} }

func (m Match) method(method string) Match { m.Method = method; return m }

func (m Match) header(name, value string) Match {
	m.Headers = append(slices.Clone(m.Headers), ValueMatch{Name: name, Value: value})
	return m
}

func (m Match) headerRegex(name, value string) Match {
	m.Headers = append(slices.Clone(m.Headers), ValueMatch{Name: name, Value: value, Regex: true})
	return m
}

func (m Match) query(name, value string) Match {
	m.Query = append(slices.Clone(m.Query), ValueMatch{Name: name, Value: value})
	return m
}

func (m Match) queryRegex(name, value string) Match {
	m.Query = append(slices.Clone(m.Query), ValueMatch{Name: name, Value: value, Regex: true})
	return m
}

// request makes a head of a method, a URL without scheme ("a.test/path?query"), and field lines "name: value".
func request(t testing.TB, method, url string, fields ...string) *exchange.Head {
	t.Helper()
	h := &exchange.Head{Method: method, Scheme: "http", Authority: url}
	if slash := strings.IndexAny(url, "/*"); slash >= 0 {
		h.Authority, h.Target = url[:slash], url[slash:]
	}
	for _, line := range fields {
		name, value, _ := strings.Cut(line, ": ")
		h.Fields.Add(name, value)
	}
	if err := h.Normalize(); err != nil {
		t.Fatalf("%s: %v", url, err)
	}
	return h
}

// TestMatch asks of one match and one request whether they fit.
func TestMatch(t *testing.T) {
	tests := map[string]struct {
		match  Match
		method string // "" means GET
		target string
		fields []string
		want   bool
	}{
		"zero match":                            {match: Match{}, target: "/any?x=1", want: true},
		"zero match, OPTIONS *":                 {match: Match{}, method: "OPTIONS", target: "*", want: true},
		"prefix / and OPTIONS *":                {match: prefix("/"), method: "OPTIONS", target: "*", want: true},
		"prefix /a and OPTIONS *":               {match: prefix("/a"), method: "OPTIONS", target: "*"},
		"exact / and OPTIONS *":                 {match: exact("/"), method: "OPTIONS", target: "*"},
		"prefix, itself":                        {match: prefix("/a"), target: "/a", want: true},
		"prefix, slash":                         {match: prefix("/a"), target: "/a/", want: true},
		"prefix, below":                         {match: prefix("/a"), target: "/a/b/c", want: true},
		"prefix, part of a segment":             {match: prefix("/a"), target: "/ab"},
		"prefix, above":                         {match: prefix("/a/b"), target: "/a"},
		"prefix, other case":                    {match: prefix("/a"), target: "/A"},
		"prefix with slash, itself":             {match: prefix("/a/"), target: "/a/", want: true},
		"prefix with slash, without":            {match: prefix("/a/"), target: "/a", want: true},
		"prefix with slash, below":              {match: prefix("/a/"), target: "/a/b", want: true},
		"prefix /":                              {match: prefix("/"), target: "/a/b", want: true},
		"prefix / and /":                        {match: prefix("/"), target: "/", want: true},
		"prefix without path":                   {match: prefix(""), target: "/a", want: true},
		"type defaults to prefix":               {match: Match{Path: "/a"}, target: "/a/b", want: true},
		"prefix with escaped slash":             {match: prefix("/a%2Fb"), target: "/a%2fb/c", want: true},
		"escaped slash does not separate":       {match: prefix("/a"), target: "/a%2fb"},
		"prefix not in normal form":             {match: prefix("//a/./b/../%63//"), target: "/a/c/d", want: true},
		"prefix with dots up to the root":       {match: prefix("/a/.."), target: "/b", want: true},
		"prefix with escapes in lower case":     {match: prefix("/%c3%a9"), target: "/%C3%A9/x", want: true},
		"exact":                                 {match: exact("/a/b"), target: "/a/b?c=d", want: true},
		"exact, slash":                          {match: exact("/a/b"), target: "/a/b/"},
		"exact with slash":                      {match: exact("/a/b/"), target: "/a/b/", want: true},
		"exact with slash, without":             {match: exact("/a/b/"), target: "/a/b"},
		"exact, below":                          {match: exact("/a"), target: "/a/b"},
		"exact, other case":                     {match: exact("/a"), target: "/A"},
		"exact not in normal form":              {match: exact("/%7Ea//b"), target: "/~a/b", want: true},
		"exact /":                               {match: exact("/"), target: "/", want: true},
		"regex":                                 {match: regex("/a/[0-9]+"), target: "/a/42", want: true},
		"regex matches the whole path":          {match: regex("/a/[0-9]+"), target: "/a/42/b"},
		"regex does not match inside":           {match: regex("a"), target: "/a"},
		"regex with alternatives":               {match: regex("/a|/b"), target: "/bc"},
		"regex with alternatives, second":       {match: regex("/a|/b"), target: "/b", want: true},
		"regex with anchors of its own":         {match: regex("^/a$"), target: "/a", want: true},
		"regex, other case":                     {match: regex("/a"), target: "/A"},
		"regex, case ignored":                   {match: regex("(?i)/a"), target: "/A", want: true},
		"regex with an open quotation":          {match: regex(`/a.\Q+b`), target: "/ax+b", want: true},
		"regex with multi-line flag":            {match: regex("(?m)/a$"), target: "/a%0A", want: false},
		"regex is on the normal form":           {match: regex("/~a/b"), target: "/%7ea//b", want: true},
		"method":                                {match: Match{Method: "GET"}, target: "/", want: true},
		"method, other":                         {match: Match{Method: "POST"}, target: "/"},
		"method, other case":                    {match: Match{Method: "get"}, target: "/"},
		"header":                                {match: Match{}.header("X-A", "1"), target: "/", fields: []string{"x-a: 1"}, want: true},
		"header, name in another case":          {match: Match{}.header("x-a", "1"), target: "/", fields: []string{"X-A: 1"}, want: true},
		"header, well-known":                    {match: Match{}.header("User-AGENT", "1"), target: "/", fields: []string{"user-agent: 1"}, want: true},
		"header, value in another case":         {match: Match{}.header("x-a", "a"), target: "/", fields: []string{"x-a: A"}},
		"header, absent":                        {match: Match{}.header("x-a", "1"), target: "/", fields: []string{"x-b: 1"}},
		"header, part of the value":             {match: Match{}.header("x-a", "1"), target: "/", fields: []string{"x-a: 12"}},
		"header, empty and absent":              {match: Match{}.header("x-a", ""), target: "/"},
		"header, empty":                         {match: Match{}.header("x-a", ""), target: "/", fields: []string{"x-a: "}, want: true},
		"header, repeated":                      {match: Match{}.header("x-a", "1, 2"), target: "/", fields: []string{"x-a: 1", "X-A: 2"}, want: true},
		"header, repeated, first alone":         {match: Match{}.header("x-a", "1"), target: "/", fields: []string{"x-a: 1", "x-a: 2"}},
		"header, long name":                     {match: Match{}.header(strings.Repeat("x", 100), "1"), target: "/", fields: []string{strings.Repeat("X", 100) + ": 1"}, want: true},
		"headers, both":                         {match: Match{}.header("x-a", "1").header("x-b", "2"), target: "/", fields: []string{"x-b: 2", "x-a: 1"}, want: true},
		"headers, one of two":                   {match: Match{}.header("x-a", "1").header("x-b", "2"), target: "/", fields: []string{"x-a: 1"}},
		"headers, equivalent names: first":      {match: Match{}.header("x-a", "1").header("X-A", "2"), target: "/", fields: []string{"x-a: 1"}, want: true},
		"headers, equivalent names: second":     {match: Match{}.header("x-a", "1").header("X-A", "2"), target: "/", fields: []string{"x-a: 2"}},
		"header regex":                          {match: Match{}.headerRegex("x-a", "a.*"), target: "/", fields: []string{"x-a: abc"}, want: true},
		"header regex matches the whole":        {match: Match{}.headerRegex("x-a", "b"), target: "/", fields: []string{"x-a: abc"}},
		"header regex on repeated":              {match: Match{}.headerRegex("x-a", ".*, 2"), target: "/", fields: []string{"x-a: 1", "x-a: 2"}, want: true},
		"header regex, absent":                  {match: Match{}.headerRegex("x-a", ".*"), target: "/"},
		"cookie regex":                          {match: Match{}.headerRegex("Cookie", "(.*; )?user=jason(;.*)?"), target: "/", fields: []string{"Cookie: a=b; user=jason; c=d"}, want: true},
		"query":                                 {match: Match{}.query("q", "1"), target: "/?q=1", want: true},
		"query, last of several":                {match: Match{}.query("q", "1"), target: "/?a=b&&c&q=1", want: true},
		"query, name in another case":           {match: Match{}.query("q", "1"), target: "/?Q=1"},
		"query, absent":                         {match: Match{}.query("q", "1"), target: "/?a=1"},
		"query, none":                           {match: Match{}.query("q", ""), target: "/"},
		"query, no value":                       {match: Match{}.query("q", ""), target: "/?q", want: true},
		"query, empty value":                    {match: Match{}.query("q", ""), target: "/?q=", want: true},
		"query, first value counts":             {match: Match{}.query("q", "1"), target: "/?q=1&q=2", want: true},
		"query, second value does not":          {match: Match{}.query("q", "2"), target: "/?q=1&q=2"},
		"query, equals sign in the value":       {match: Match{}.query("q", "a=b"), target: "/?q=a=b", want: true},
		"query, encoded value":                  {match: Match{}.query("q", "a b&c"), target: "/?q=a+b%26c", want: true},
		"query, encoded name":                   {match: Match{}.query("a b", "1"), target: "/?a%20b=1", want: true},
		"query, encoded name is the first":      {match: Match{}.query("q", "1"), target: "/?%71=1&q=2", want: true},
		"query, semicolon is no separator":      {match: Match{}.query("q", "1"), target: "/?a=b;q=1"},
		"query, malformed value":                {match: Match{}.query("q", "%zz%4"), target: "/?q=%zz%4", want: true},
		"query, malformed parameter before":     {match: Match{}.query("q", "1"), target: "/?%zz=%&q=1", want: true},
		"query, match value is not decoded":     {match: Match{}.query("q", "%41"), target: "/?q=A"},
		"query, encoded percent sign":           {match: Match{}.query("q", "%41"), target: "/?q=%2541", want: true},
		"query regex":                           {match: Match{}.queryRegex("q", "[0-9]+"), target: "/?q=%31%32", want: true},
		"query regex matches the whole":         {match: Match{}.queryRegex("q", "[0-9]+"), target: "/?q=12a"},
		"query, equivalent names: first counts": {match: Match{}.query("q", "1").query("q", "2"), target: "/?q=1", want: true},
		"query, names differ in case":           {match: Match{}.query("q", "1").query("Q", "2"), target: "/?q=1"},
		"all at once": {match: prefix("/a").method("POST").header("x-a", "1").query("q", "1"), method: "POST", target: "/a/b?q=1",
			fields: []string{"x-a: 1"}, want: true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			h := request(t, cmp.Or(test.method, "GET"), "a.test"+test.target, test.fields...)
			if err := ValidateMatch(test.match); err != nil {
				t.Fatal(err)
			}
			table := compile(t, on(test.match))
			if _, got := table.Find(h); got != test.want {
				t.Errorf("Find = %v, want %v; %+v", got, test.want, table.Explain(h, 1))
			}
		})
	}
}

func (m Match) specific(n uint32) Match {
	m.Specificity = n
	return m
}

// TestPrecedence has pairs of rules that both match; the better must win in either order.
func TestPrecedence(t *testing.T) {
	tests := map[string]struct{ better, worse Rule[int] }{
		"exact host before wildcard":             {on(prefix("/"), "b.a.test"), on(exact("/a/b"), "*.a.test")},
		"long wildcard before short":             {on(prefix("/"), "*.a.test"), on(exact("/a/b"), "*.test")},
		"wildcard before every host":             {on(prefix("/"), "*.test"), on(exact("/a/b"))},
		"host before path":                       {on(prefix("/"), "b.a.test"), on(exact("/a/b"))},
		"best of several hosts counts":           {on(prefix("/"), "", "other", "b.a.test"), on(exact("/a/b"), "*.a.test")},
		"exact before regex":                     {on(exact("/a/b")), on(regex("/a/b|/aaaaaaaaaaaaa"))},
		"exact before prefix":                    {on(exact("/a/b")), on(prefix("/a/b").method("GET"))},
		"regex before prefix":                    {on(regex("/.*")), on(prefix("/a/b").method("GET"))},
		"long regex before short":                {on(regex("/a/[b]")), on(regex("/a/.").method("GET"))},
		"long prefix before short":               {on(prefix("/a/b")), on(prefix("/a").method("GET").header("x-a", "1"))},
		"prefix before root":                     {on(prefix("/a")), on(Match{}.method("GET"))},
		"method before headers":                  {on(prefix("/a").method("GET")), on(prefix("/a").header("x-a", "1").header("x-b", "2"))},
		"method, trailing slash does not count":  {on(prefix("/a").method("GET")), on(prefix("/a/"))},
		"more headers":                           {on(prefix("/a").header("x-a", "1").header("x-b", "2")), on(prefix("/a").header("x-a", "1").query("q", "1").query("r", "2"))},
		"repeated header names do not count":     {on(prefix("/a").header("x-a", "1").header("x-b", "2")), on(prefix("/a").header("x-a", "1").header("X-A", "1").header("x-A", "1"))},
		"a header before query parameters":       {on(prefix("/a").header("x-a", "1")), on(prefix("/a").query("q", "1").query("r", "2"))},
		"more query parameters":                  {on(prefix("/a").query("q", "1").query("r", "2")), on(prefix("/a").query("q", "1"))},
		"specificity before the path's type":     {on(prefix("/a").specific(2)), on(exact("/a/b").specific(1))},
		"specificity before an expression":       {on(prefix("/a").specific(3)), on(regex("/a/b|c").specific(2))},
		"expression of more specificity":         {on(regex("/[^/]+/b").specific(3)), on(exact("/a/b").specific(2).header("x-a", "1"))},
		"some specificity before none":           {on(regex("/[^/]+/b").specific(1)), on(Match{}.header("x-a", "1").header("x-b", "2"))},
		"equal specificity, more headers":        {on(prefix("/a").specific(2).header("x-a", "1")), on(exact("/a/b").specific(2))},
		"a regular expression counts as a match": {on(prefix("/a").headerRegex("x-a", ".*").header("x-b", "2")), on(prefix("/a").header("x-a", "1"))},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			h := request(t, "GET", "b.a.test/a/b?q=1&r=2", "x-a: 1", "x-b: 2")
			if got, ok := compile(t, test.better, test.worse).Find(h); !ok || got != 0 {
				t.Errorf("better first: Find = %d, %v", got, ok)
			}
			if got, ok := compile(t, test.worse, test.better).Find(h); !ok || got != 1 {
				t.Errorf("worse first: Find = %d, %v", got, ok)
			}
		})
	}
}

func TestTiesGoByOrder(t *testing.T) {
	for name, m := range map[string]Match{
		"prefix": prefix("/a"), "exact": exact("/a"), "regex": regex("/a"), "regex of equal length": regex("/[a]"),
		"header": prefix("/a").header("x-a", "1"),
	} {
		t.Run(name, func(t *testing.T) {
			rules := []Rule[int]{on(m), on(m), on(m)}
			if strings.HasPrefix(name, "regex of") {
				rules[1].Match.Path, rules[2].Match.Path = "/(a)", "/a+?"
			}
			if got, ok := compile(t, rules...).Find(request(t, "GET", "x/a", "x-a: 1")); !ok || got != 0 {
				t.Errorf("Find = %d, %v", got, ok)
			}
		})
	}
}

// Of expressions of one length, method and headers decide, whichever expression comes first.
func TestExpressionsOfEqualLength(t *testing.T) {
	table := compile(t,
		on(regex("/a.*")),
		on(regex("/.*b").header("x-a", "1")),
		on(regex("/a.*").method("GET")),
		on(regex("/.*b")),
	)
	tests := map[string]struct {
		method string
		fields []string
		want   int
	}{
		"method first":  {"GET", []string{"x-a: 1"}, 2},
		"then headers":  {"POST", []string{"x-a: 1"}, 1},
		"then by order": {"POST", nil, 0},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if got, _ := table.Find(request(t, test.method, "x/ab", test.fields...)); got != test.want {
				t.Errorf("Find = %d, want %d", got, test.want)
			}
		})
	}
}

// A less specific rule serves what the more specific ones do not match: by host, by path, by path type.
func TestFallThrough(t *testing.T) {
	table := compile(t,
		on(exact("/a/b").method("PUT"), "a.test"),         // 0
		on(regex("/a/.*").header("x-a", "1"), "a.test"),   // 1
		on(prefix("/a/b").query("q", "1"), "a.test"),      // 2
		on(prefix("/a").method("DELETE"), "a.test"),       // 3
		on(prefix("/a"), "*.test"),                        // 4
		on(prefix("/").method("GET")),                     // 5
		on(prefix("/only"), "*.a.test", "a.test", "else"), // 6
	)
	tests := map[string]struct {
		method, url string
		fields      []string
		want        int // -1 for none
	}{
		"exact":                     {"PUT", "a.test/a/b", nil, 0},
		"exact fails, regex":        {"GET", "a.test/a/b", []string{"x-a: 1"}, 1},
		"regex fails, prefix":       {"GET", "a.test/a/b?q=1", nil, 2},
		"prefix fails, shorter":     {"DELETE", "a.test/a/b", nil, 3},
		"host fails, wildcard":      {"GET", "a.test/a/b", nil, 4},
		"wildcard fails, every":     {"GET", "a.test/b", nil, 5},
		"every fails":               {"POST", "a.test/b", nil, -1},
		"unknown host":              {"GET", "other/a", nil, 5},
		"no host":                   {"GET", "/a", nil, 5},
		"several hosts":             {"POST", "x.y.a.test/only", nil, 6},
		"port and case do not tell": {"PUT", "A.Test.:8080/a/b", nil, 0},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			h := request(t, test.method, test.url, test.fields...)
			got, ok := table.Find(h)
			if ok != (test.want >= 0) || ok && got != test.want {
				t.Errorf("Find = %d, %v, want %d", got, ok, test.want)
			}
			checkExplain(t, table, h, got, ok)
		})
	}
}

// The worked example that table.go opens with.
func TestWorkedExample(t *testing.T) {
	rules := []Rule[int]{
		on(exact("/cart"), "shop.test"),
		on(prefix("/api/v1").method("GET"), "shop.test"),
	}
	for i := range 20 {
		rules = append(rules, on(prefix("/api").header("x-tenant", "tenant "+strconv.Itoa(i)), "shop.test"))
	}
	rules = append(rules, on(prefix("/"), "*.test"))
	table := compile(t, rules...)
	for target, want := range map[string]int{"/cart": 0, "/api/v1/users": 1, "/api": 4, "/api/x": 4, "/other": 22} {
		if got, ok := table.Find(request(t, "GET", "shop.test"+target, "x-tenant: tenant 2")); !ok || got != want {
			t.Errorf("%s: Find = %d, %v, want %d", target, got, ok, want)
		}
	}
	if got, _ := table.Find(request(t, "POST", "shop.test/api/v1/users", "X-Tenant: tenant 19")); got != 21 {
		t.Errorf("Find = %d, want 21", got)
	}
	if got, _ := table.Find(request(t, "POST", "shop.test/api/v1/users", "X-Tenant: green")); got != 22 {
		t.Errorf("Find = %d, want 22", got)
	}
}

// Many rules of one host and path are told apart by index, whatever distinguishes them.
func TestCrowdedNode(t *testing.T) {
	const n = 900
	tests := map[string]struct {
		match  func(i int) Match
		target func(i int) string
		fields func(i int) []string
	}{
		"one header": {
			match:  func(i int) Match { return prefix("/").header("x-tenant", strconv.Itoa(i)) },
			fields: func(i int) []string { return []string{"X-Tenant: " + strconv.Itoa(i)} },
		},
		"a header with a common one": {
			match:  func(i int) Match { return prefix("/").header("env", "prod").header("x-tenant", strconv.Itoa(i)) },
			fields: func(i int) []string { return []string{"env: prod", "x-tenant: " + strconv.Itoa(i)} },
		},
		"two headers crossed": {
			match: func(i int) Match {
				return prefix("/").header("x-a", strconv.Itoa(i/30)).header("x-b", strconv.Itoa(i%30))
			},
			fields: func(i int) []string { return []string{"x-a: " + strconv.Itoa(i/30), "x-b: " + strconv.Itoa(i%30)} },
		},
		"names": {
			match:  func(i int) Match { return prefix("/").header("x-"+strconv.Itoa(i), "1") },
			fields: func(i int) []string { return []string{"X-" + strconv.Itoa(i) + ": 1"} },
		},
		"a query parameter": {
			match:  func(i int) Match { return prefix("/").query("tenant", strconv.Itoa(i)) },
			target: func(i int) string { return "/?a=b&tenant=" + strconv.Itoa(i) },
		},
		"names of query parameters": {
			match:  func(i int) Match { return prefix("/").query("q"+strconv.Itoa(i), "a b") },
			target: func(i int) string { return "/?q" + strconv.Itoa(i) + "=a+b" },
		},
		"a header and an expression": {
			match: func(i int) Match {
				return prefix("/").headerRegex("cookie", "user=.*").header("x-tenant", strconv.Itoa(i))
			},
			fields: func(i int) []string { return []string{"cookie: user=x", "x-tenant: " + strconv.Itoa(i)} },
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			rules := make([]Rule[int], n)
			for i := range rules {
				rules[i] = on(test.match(i))
			}
			rules = append(rules, on(prefix("/")))
			table := compile(t, rules...)
			for i := 0; i < n; i += 7 {
				target, fields := "/", []string(nil)
				if test.target != nil {
					target = test.target(i)
				}
				if test.fields != nil {
					fields = test.fields(i)
				}
				if got, ok := table.Find(request(t, "GET", "x"+target, fields...)); !ok || got != i {
					t.Fatalf("Find = %d, %v, want %d", got, ok, i)
				}
			}
			if got, ok := table.Find(request(t, "GET", "x/", "x-other: 1")); !ok || got != n {
				t.Errorf("none: Find = %d, %v, want %d", got, ok, n)
			}
			for i := range table.index.nodes {
				if ranks := table.index.nodes[i].ranks; ranks.to-ranks.from > fewRules {
					t.Errorf("a node is left with %d rules to check one by one", ranks.to-ranks.from)
				}
			}
		})
	}
}

// A request may have more of the names that a crowded node asks for than a probe holds without allocating.
func TestManyNamesInOneRequest(t *testing.T) {
	const n = 100
	var rules []Rule[int]
	for i := range n {
		rules = append(rules, on(prefix("/").header("x-"+strconv.Itoa(i), "1").query("q"+strconv.Itoa(i), "1")))
	}
	table := compile(t, rules...)
	h := request(t, "GET", "x/?q99=0")
	for i := range n {
		h.Fields.Add("X-"+strconv.Itoa(i), "0")
		h.Target += fmt.Sprintf("&q%d=%d", i, i%2)
	}
	h.Target += "&q50=1"      // not the first
	h.Fields.Set("x-50", "1") // q50 is 0
	h.Fields.Set("x-51", "1") // q51 is 1
	h.Fields.Set("x-52", "1") // q52 is 0
	h.Fields.Set("x-99", "1") // q99 is 0 first
	if err := h.Normalize(); err != nil {
		t.Fatal(err)
	}
	if got, ok := table.Find(h); !ok || got != 51 {
		t.Errorf("Find = %d, %v, want 51", got, ok)
	}
	checkExplain(t, table, h, 51, true)
}

func TestBadRulesAreSetAside(t *testing.T) {
	rules := []Rule[int]{
		{Match: prefix("/good"), Value: 0},
		{Match: regex("("), Value: 1},
		{Match: prefix("/").header("x-ok", "1").headerRegex("x-a", "["), Value: 2},
		{Match: prefix("/").queryRegex("q", "*"), Value: 3},
		{Match: prefix("/also"), Hosts: []string{"a.test", "*bad"}, Value: 4},
		{Match: exact("relative"), Value: 5},
		{Match: prefix("/good/too").header("x-a", "1"), Value: 6},
	}
	table, err := Compile(rules)
	var bad []int
	for _, e := range err.(interface{ Unwrap() []error }).Unwrap() {
		var r *RuleError
		if !errors.As(e, &r) || r.Err == nil || !strings.HasPrefix(e.Error(), fmt.Sprintf("rule %d: ", r.Index)) {
			t.Fatalf("%v is no RuleError", e)
		}
		bad = append(bad, r.Index)
	}
	if want := []int{1, 2, 3, 4, 5}; !slices.Equal(bad, want) {
		t.Errorf("bad rules %v, want %v", bad, want)
	}
	if table.Len() != 2 {
		t.Errorf("the table has %d rules, want 2", table.Len())
	}
	for target, want := range map[string]int{"/good": 0, "/good/too": 6} {
		if got, ok := table.Find(request(t, "GET", "a.test"+target, "x-a: 1")); !ok || got != want {
			t.Errorf("%s: Find = %d, %v, want %d", target, got, ok, want)
		}
	}
	if got, ok := table.Find(request(t, "GET", "a.test/also", "x-ok: 1")); ok {
		t.Errorf("a rule set aside matches: %d", got)
	}
}

// The way up from a prefix passes by those without rules.
func TestUpSkipsEmptyPrefixes(t *testing.T) {
	table := compile(t, on(prefix("/a/b/c/d/e/f")), on(prefix("/a/b")), on(prefix("/a/b/c/x/y").method("GET")))
	site, _ := table.index.hosts.Find("x")
	var steps int
	for n := table.index.deepest(&table.index.sites[site], "/a/b/c/d/e/f/g"); table.index.nodes[n].kind != rootNode; n = table.index.nodes[n].up {
		steps++
	}
	if steps != 2 { // /a/b/c/d/e/f and /a/b
		t.Errorf("%d steps to the root, want 2", steps)
	}
}

func TestEmptyTables(t *testing.T) {
	h := request(t, "GET", "a.test/")
	for name, table := range map[string]*Table[int]{"nil": nil, "no rules": compile(t)} {
		if _, ok := table.Find(h); ok || table.Len() != 0 || len(table.Explain(h, 10)) != 0 {
			t.Errorf("%s: not empty", name)
		}
	}
}

func TestRecompileKeepsExpressions(t *testing.T) {
	old := compile(t, on(regex("/a.*")), on(prefix("/").headerRegex("x-a", "b.*")), on(regex("/gone.*")))
	rules := []Rule[int]{{Match: prefix("/").headerRegex("x-b", "b.*"), Value: 1}, {Match: regex("/a.*"), Value: 2}, {Match: regex("/new.*"), Value: 3}}
	table, err := old.Recompile(rules)
	if err != nil {
		t.Fatal(err)
	}
	for _, source := range []string{"/a.*", "b.*"} {
		if table.index.patterns[source] == nil || table.index.patterns[source] != old.index.patterns[source] {
			t.Errorf("%q was compiled anew", source)
		}
	}
	if len(table.index.patterns) != 3 {
		t.Errorf("the table holds %d expressions, want 3", len(table.index.patterns))
	}
	if got, ok := table.Find(request(t, "GET", "x/abc", "x-b: bb")); !ok || got != 2 {
		t.Errorf("Find = %d, %v, want 2", got, ok)
	}
	if got, ok := old.Find(request(t, "GET", "x/gone1")); !ok || got != 2 {
		t.Errorf("the old table changed: Find = %d, %v", got, ok)
	}
}

func TestConcurrentUse(t *testing.T) {
	table := compile(t, on(regex("/a.*").query("q", "1")), on(prefix("/a").headerRegex("x-a", "1.*")), on(prefix("/")))
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			for i := range 200 {
				h := &exchange.Head{Method: "GET", Authority: "x", Target: "/a?q=" + strconv.Itoa(i%2)}
				h.Fields.Add("X-A", "1")
				if err := h.Normalize(); err != nil {
					t.Error(err)
				}
				if got, _ := table.Find(h); got != 1-i%2 {
					t.Errorf("Find = %d, want %d", got, 1-i%2)
				}
				table.Explain(h, 2)
			}
		})
	}
	group.Wait()
}

func TestFindDoesNotAllocate(t *testing.T) {
	for _, s := range shapes {
		t.Run(s.name, func(t *testing.T) {
			table := compile(t, s.rules(1000)...)
			h := s.request(500)
			if n := testing.AllocsPerRun(100, func() { table.Find(h) }); n != 0 {
				t.Errorf("Find allocates %v times", n)
			}
		})
	}
	t.Run("names", func(t *testing.T) {
		var rules []Rule[int]
		for i := range 50 {
			rules = append(rules, on(prefix("/").header("x-"+strconv.Itoa(i), "1").query("q", "1")))
		}
		table := compile(t, rules...)
		h := request(t, "GET", "x/?%71=1", "X-17: 1")
		if n := testing.AllocsPerRun(100, func() { table.Find(h) }); n != 0 {
			t.Errorf("Find allocates %v times", n)
		}
	})
}

// Requests made to be expensive must cost in proportion to their size. Quadratic, each of these takes minutes.
func TestHostileRequests(t *testing.T) {
	const n = 200_000
	rules := []Rule[int]{
		on(prefix("/a/a/a/a").query("q", "1"), "*.test"),
		on(prefix("/").header("x-a", "1")),
		on(prefix("/"+strings.Repeat("a/", 1000)).header("x-a", "2")),
	}
	for i := range 500 {
		rules = append(rules, on(prefix("/").query("p"+strconv.Itoa(i), "1").header("x-"+strconv.Itoa(i), "1")))
	}
	table := compile(t, rules...)
	var everyName, crumbs exchange.Fields
	for i := range n / 10 {
		everyName.Add("X-"+strconv.Itoa(i%500), "0")
		crumbs.Add("x-a", "1")
	}
	tests := map[string]exchange.Head{
		"segments":           {Authority: "b.test", Target: strings.Repeat("/a", n)},
		"empty segments":     {Authority: "b.test", Target: strings.Repeat("/", n)},
		"parameters":         {Authority: "b.test", Target: "/a/a/a/a/a?" + strings.Repeat("a&", n)},
		"encoded parameters": {Authority: "b.test", Target: "/a/a/a/a/a?" + strings.Repeat("%71%71=+&", n)},
		"wanted parameters":  {Authority: "b.test", Target: "/a/a/a/a/a?" + strings.Repeat("p1=1&p2&p3&q=%&", n)},
		"labels":             {Authority: strings.Repeat("a.", n) + "test", Target: "/"},
		"fields":             {Authority: "b.test", Target: "/", Fields: everyName},
		"lines of one field": {Authority: "b.test", Target: "/", Fields: crumbs},
	}
	for name, h := range tests {
		t.Run(name, func(t *testing.T) {
			h.Method = "GET"
			if err := h.Normalize(); err != nil {
				t.Fatal(err)
			}
			start := time.Now()
			table.Find(&h)
			if took := time.Since(start); took > 3*time.Second {
				t.Errorf("took %v", took)
			}
		})
	}
}
