package routing

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"

	"gatehouse.dev/gatehouse/gateway/exchange"
)

// reference is the specification in the plainest code: every rule on each of its hosts, sorted by precedence, the first that matches.
// It shares nothing with the table.
type reference struct{ entries []entry }

type entry struct {
	host  string
	match Match
	value int
}

func newReference(rules []Rule[int]) *reference {
	r := &reference{}
	for _, rule := range rules {
		hosts := rule.Hosts
		if len(hosts) == 0 {
			hosts = []string{""}
		}
		for _, host := range hosts {
			m := rule.Match
			if m.PathType == "" {
				m.PathType = PathPrefix
			}
			if m.PathType == PathPrefix {
				m.Path = strings.TrimRight(m.Path, "/")
			}
			m.Headers, m.Query = firsts(m.Headers, strings.ToLower), firsts(m.Query, strings.Clone)
			r.entries = append(r.entries, entry{host, m, rule.Value})
		}
	}
	slices.SortStableFunc(r.entries, func(a, b entry) int {
		return slices.Compare(b.weight(), a.weight())
	})
	return r
}

func firsts(list []ValueMatch, fold func(string) string) (out []ValueMatch) {
	seen := map[string]bool{}
	for _, v := range list {
		if !seen[fold(v.Name)] {
			out = append(out, v)
		}
		seen[fold(v.Name)] = true
	}
	return out
}

// weight is what precedence compares, the greater first.
func (e *entry) weight() []int {
	exactHost, method := 0, 0
	if e.host != "" && !strings.HasPrefix(e.host, "*") {
		exactHost = len(e.host)
	}
	if e.match.Method != "" {
		method = 1
	}
	class, length := map[PathType]int{PathExact: 3, PathRegex: 2, PathPrefix: 1}[e.match.PathType], len(e.match.Path)
	if e.match.Specificity > 0 {
		class, length = 1, int(e.match.Specificity)
	}
	return []int{exactHost, len(e.host), class, length, method, len(e.match.Headers), len(e.match.Query)}
}

func (r *reference) find(h *exchange.Head) (int, bool) {
	for i := range r.entries {
		if r.entries[i].matches(h) {
			return r.entries[i].value, true
		}
	}
	return 0, false
}

func (e *entry) matches(h *exchange.Head) bool {
	host, path, m := h.Host(), h.Path(), &e.match
	suffix, wild := strings.CutPrefix(e.host, "*")
	switch {
	case e.host == "":
	case wild && (!strings.HasSuffix(host, suffix) || len(host) == len(suffix)):
		return false
	case !wild && host != e.host:
		return false
	}
	switch m.PathType {
	case PathExact:
		if path != m.Path {
			return false
		}
	case PathRegex:
		if !fullMatch(m.Path, path) {
			return false
		}
	default:
		if m.Path != "" && path != m.Path && !strings.HasPrefix(path, m.Path+"/") {
			return false
		}
	}
	if m.Method != "" && m.Method != h.Method {
		return false
	}
	for _, v := range m.Headers {
		var values []string
		for _, f := range h.Fields {
			if strings.EqualFold(f.Name, v.Name) {
				values = append(values, f.Value)
			}
		}
		separator := ", "
		if strings.EqualFold(v.Name, "cookie") {
			separator = "; "
		}
		if len(values) == 0 || !valueMatches(v, strings.Join(values, separator)) {
			return false
		}
	}
	for _, v := range m.Query {
		value, ok := firstParameter(h.Query(), v.Name)
		if !ok || !valueMatches(v, value) {
			return false
		}
	}
	return true
}

func valueMatches(v ValueMatch, value string) bool {
	if v.Regex {
		return fullMatch(v.Value, value)
	}
	return v.Value == value
}

// fullMatch goes by the leftmost-longest match, not by anchors.
func fullMatch(pattern, s string) bool {
	re := regexp.MustCompile(pattern)
	re.Longest()
	at := re.FindStringIndex(s)
	return at != nil && at[0] == 0 && at[1] == len(s)
}

func firstParameter(query, name string) (string, bool) {
	for _, pair := range strings.Split(query, "&") {
		key, value, _ := strings.Cut(pair, "=")
		if pair != "" && leniently(key) == name {
			return leniently(value), true
		}
	}
	return "", false
}

var escapes = regexp.MustCompile(`%[0-9a-fA-F]{2}`)

func leniently(s string) string {
	return escapes.ReplaceAllStringFunc(strings.ReplaceAll(s, "+", " "), func(e string) string {
		decoded, _ := url.PathUnescape(e)
		return decoded
	})
}

// dice makes choices out of bytes, so that one generator serves random tests and the fuzzer. Out of bytes it chooses 0.
type dice struct{ data []byte }

func (d *dice) roll(n int) int {
	if len(d.data) == 0 {
		return 0
	}
	v := int(d.data[0])
	d.data = d.data[1:]
	return v % n
}

func pick[T any](d *dice, list ...T) T { return list[d.roll(len(list))] }

func (d *dice) path() string {
	path := ""
	for range d.roll(4) {
		path += "/" + pick(d, "a", "b", "aa", "a%2Fb")
	}
	return path + pick(d, "", "/")
}

func (d *dice) values(names ...string) (list []ValueMatch) {
	for range pick(d, 0, 0, 1, 1, 2, 3) {
		v := ValueMatch{Name: pick(d, names...), Value: pick(d, "1", "2", "1, 2", "1; 2", "a b", "")}
		if d.roll(6) == 5 {
			v.Regex, v.Value = true, pick(d, "1|2", ".*", "1.*", "[a-z ]+")
		}
		list = append(list, v)
	}
	return list
}

func (d *dice) rule(value int) Rule[int] {
	r := Rule[int]{Value: value}
	for range d.roll(3) {
		r.Hosts = append(r.Hosts, pick(d, "", "a.test", "b.a.test", "*.test", "*.a.test", "*.b.a.test", "other"))
	}
	m := &r.Match
	switch m.PathType = pick(d, PathPrefix, PathPrefix, PathExact, PathRegex, ""); m.PathType {
	case PathRegex:
		m.Path = pick(d, "/a.*", "/(a|b)", "/a/.*", "/[ab]", "^/a$", `/\Qa`, "(?i)/A.*", ".*")
	case PathExact:
		m.Path = cmp.Or(d.path(), "/")
	default:
		m.Path = d.path()
	}
	m.Method = pick(d, "", "", "GET", "POST")
	m.Headers = d.values("x-one", "X-One", "x-two", "Cookie", "cookie")
	m.Query = d.values("q", "Q", "p q", "é")
	if d.roll(4) == 3 {
		m.Specificity = pick[uint32](d, 1, 2, 3, 300)
	}
	return r
}

func (d *dice) rules() (rules []Rule[int]) {
	// A few matches on one host and path are enough to make a node split.
	crowd := d.rule(0)
	for i := range 1 + d.roll(60) {
		r := d.rule(i)
		if d.roll(2) == 1 {
			r.Hosts, r.Match.PathType, r.Match.Path = crowd.Hosts, crowd.Match.PathType, crowd.Match.Path
		}
		rules = append(rules, r)
	}
	return rules
}

func (d *dice) request() *exchange.Head {
	h := &exchange.Head{Method: pick(d, "GET", "POST"), Scheme: "http", Target: cmp.Or(d.path(), "/")}
	h.Authority = pick(d, "a.test", "b.a.test", "c.b.a.test", "A.test:80", "other", "x.other", "", "test", "[::1]:80", "..test", ".test")
	for range d.roll(4) {
		h.Fields.Add(pick(d, "x-one", "X-ONE", "X-Two", "cookie"), pick(d, "1", "2", "a b", ""))
	}
	separator := "?"
	for range d.roll(5) {
		h.Target += separator + pick(d, "q", "Q", "p+q", "p%20q", "%C3%A9", "%q", "") + pick(d, "=", "", "==") + pick(d, "1", "2", "a+b", "%31", "%zz", "")
		separator = "&"
	}
	return h
}

// checkAgainstReference compiles rules and compares Find, Explain and the reference over some requests.
func checkAgainstReference(t *testing.T, d *dice, requests int) {
	t.Helper()
	rules := d.rules()
	table, err := Compile(rules)
	if err != nil {
		t.Fatalf("rules of the generator are refused: %v", err)
	}
	ref := newReference(rules)
	for range requests {
		h := d.request()
		if err := h.Normalize(); err != nil {
			t.Fatalf("target %q of the generator is refused: %v", h.Target, err)
		}
		want, wantOK := ref.find(h)
		got, ok := table.Find(h)
		if got != want || ok != wantOK {
			t.Fatalf("Find = %d, %v, want %d, %v\nrequest %+v\ngot  %+v\nwant %+v\n%s",
				got, ok, want, wantOK, h, rules[got], rules[want], listRules(rules))
		}
		checkExplain(t, table, h, got, ok)
	}
}

// checkExplain holds what is true of every explanation.
func checkExplain(t *testing.T, table *Table[int], h *exchange.Head, want int, found bool) {
	t.Helper()
	verdicts := table.Explain(h, table.Len()+1)
	if len(verdicts) != table.Len() {
		t.Fatalf("Explain gives %d verdicts on %d rules", len(verdicts), table.Len())
	}
	seen := map[int]bool{}
	for i, v := range verdicts {
		switch {
		case seen[v.Value]:
			t.Fatalf("rule %d has two verdicts", v.Value)
		case v.Won != (found && i == 0) || v.Won != (v.Reason == ReasonWon):
			t.Fatalf("verdict %d of a request with winner %v: %+v", i, found, v)
		case v.Won && v.Value != want:
			t.Fatalf("Explain's winner is %d, Find's %d", v.Value, want)
		case v.Reason == ReasonPrecedence && !found:
			t.Fatalf("a rule lost by precedence where none matches: %+v", v)
		case v.Detail == "":
			t.Fatalf("no detail: %+v", v)
		case (v.Reason == ReasonHost) == HostMatches(v.Host, h.Host()):
			t.Fatalf("host %q: %+v", h.Host(), v)
		}
		seen[v.Value] = true
	}
	standings := table.index.standings(&probe{index: &table.index, head: h}, h.Host())
	if found && table.values[standings[0].rank] != want {
		t.Fatalf("the winner does not sort first: %+v", standings[0])
	}
}

func listRules(rules []Rule[int]) string {
	var b strings.Builder
	for _, r := range rules {
		fmt.Fprintf(&b, "%+v\n", r)
	}
	return b.String()
}

func TestFindIsTheReference(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 150 {
		data := make([]byte, 4000)
		for i := range data {
			data[i] = byte(random.Uint32())
		}
		checkAgainstReference(t, &dice{data}, 40)
	}
}

func FuzzFind(f *testing.F) {
	random := rand.New(rand.NewPCG(3, 4))
	for _, size := range []int{0, 1, 50, 500, 2000} {
		data := make([]byte, size)
		for i := range data {
			data[i] = byte(random.Uint32())
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 4000 {
			return
		}
		checkAgainstReference(t, &dice{data}, 10)
	})
}

// FuzzCompile feeds one rule and one request of arbitrary strings: nothing panics, Compile accepts what ValidateMatch accepts, and what
// one rule matches is what the reference says.
func FuzzCompile(f *testing.F) {
	f.Add("a.test", "Exact", "/a", "GET", "x", "1", false, "q", "1", true, "a.test", "/a?q=1", "X", "1")
	f.Add("*.test", "PathPrefix", "/a//b/", "", "cookie", "a=.*", true, "q", "%", false, "b.a.test", "/a/b?q=%25", "cookie", "a=b")
	f.Add("", "RegularExpression", `/a\Q+`, "", "x", "(", true, "", "", false, "", "*", "", "")
	f.Add("", "", "/%7Ea", "", "x", "((a{100}){100}){100}", true, "q", "+", false, "[::1]", "/~a/b?%71=%2B", "", "")
	f.Fuzz(func(t *testing.T, host, pathType, path, method, header, headerValue string, headerRegex bool,
		query, queryValue string, queryRegex bool, authority, target, field, fieldValue string) {
		m := Match{PathType: PathType(pathType), Path: path, Method: method}
		if header != "" {
			m.Headers = []ValueMatch{{header, headerValue, headerRegex}}
		}
		if query != "" {
			m.Query = []ValueMatch{{query, queryValue, queryRegex}}
		}
		table, err := Compile([]Rule[int]{{Hosts: []string{host}, Match: m, Value: 1}})
		refused := ValidateMatch(m) != nil || ValidateHost(host) != nil
		if refused != (err != nil) || refused != (table.Len() == 0) {
			t.Fatalf("validators refuse: %v; Compile: %v", refused, err)
		}
		h := &exchange.Head{Method: "GET", Authority: authority, Target: target}
		if field != "" {
			h.Fields.Add(field, fieldValue)
		}
		if h.Normalize() != nil {
			return
		}
		value, ok := table.Find(h)
		verdicts := table.Explain(h, 10)
		if ok != (value == 1) || ok != (len(verdicts) == 1 && verdicts[0].Won) {
			t.Fatalf("Find = %d, %v, Explain = %+v", value, ok, verdicts)
		}
	})
}
