package routing

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"gatehouse.dev/gatehouse/gateway/exchange"
)

// The reasons of a Verdict. They are stable words.
const (
	ReasonWon        = "won"
	ReasonHost       = "host"       // no hostname of the rule matches
	ReasonPath       = "path"       // the path does not match
	ReasonMethod     = "method"     // the method does not match
	ReasonHeader     = "header"     // a header is absent or does not match
	ReasonQuery      = "query"      // a query parameter is absent or does not match
	ReasonPrecedence = "precedence" // the rule matches too, and another goes first
)

// Verdict says how a rule fared with a request.
type Verdict[T any] struct {
	Value T
	Won   bool
	// Reason is one of the constants above.
	Reason string
	// Detail is a sentence for people: what was wanted and what the request has.
	Detail string
	// Host is the hostname of the rule's that came closest, "" for every host.
	Host string
}

// Explain returns up to most verdicts: the rule that Find returns first, if there is one, then the others, those that came closest
// before those that failed early. It goes through all rules: it is for people, not for requests. h.Normalize was called.
func (t *Table[T]) Explain(h *exchange.Head, most int) []Verdict[T] {
	if t == nil || most <= 0 {
		return nil
	}
	host := h.Host()
	p := probe{index: &t.index, head: h}
	winner, at := t.index.find(&p, host)
	standings := t.index.standings(&p, host)
	if winner != none {
		// The winner sorts first by itself, which the tests hold; by name it does so whatever the order of the losers becomes.
		first := slices.IndexFunc(standings, func(s standing) bool { return s.rank == winner })
		s := standings[first]
		s.site = at
		standings = slices.Insert(slices.Delete(standings, first, first+1), 0, s)
	}
	most = min(most, len(standings))
	verdicts := make([]Verdict[T], 0, most)
	for i := range most {
		s := &standings[i]
		v := Verdict[T]{Value: t.values[s.rank], Won: s.rank == winner, Host: t.index.sites[s.site].host}
		if v.Won {
			v.Reason, v.Detail = ReasonWon, "matches with "+t.index.describe(s.rank)+onHost(v.Host)
		} else {
			v.Reason, v.Detail = t.index.loss(s, &standings[0], &p, host)
		}
		verdicts = append(verdicts, v)
	}
	return verdicts
}

// standing is how far one rule got on one of its hosts.
type standing struct {
	rank, site uint32
	stage      stage
	failed     *condition // of stageHeader and stageQuery
	// closeness orders standings of one stage: the greater, the closer.
	closeness int
}

func (s standing) compare(o standing) int {
	return cmp.Or(-cmp.Compare(s.stage, o.stage), -cmp.Compare(s.closeness, o.closeness), cmp.Compare(s.rank, o.rank))
}

// standings returns the best standing of each rule, the closest first. It visits the very nodes of find and judges by fails.
func (t *index) standings(p *probe, host string) []standing {
	order := t.hostOrder(host)
	visited := t.visited(p, order)
	best := make([]standing, len(t.rules))
	seen := make([]bool, len(t.rules))
	// A node comes after the one that it hangs on, so what it inherits is known when its turn comes.
	siteOf, pathOf := make([]uint32, len(t.nodes)), make([]uint32, len(t.nodes))
	for i := range t.sites {
		siteOf[t.sites[i].root] = uint32(i)
	}
	for n := range t.nodes {
		here := &t.nodes[n]
		siteOf[n] = siteOf[here.up]
		pathOf[n] = uint32(n)
		if here.kind == conditionNode {
			pathOf[n] = pathOf[here.up]
		}
		for _, rank := range t.lists[here.ranks.from:here.ranks.to] {
			s := t.standing(rank, siteOf[n], visited[pathOf[n]], order, p, host)
			if !seen[rank] || s.compare(best[rank]) < 0 {
				best[rank], seen[rank] = s, true
			}
		}
	}
	slices.SortFunc(best, standing.compare)
	return best
}

// hostOrder returns the sites whose hostname matches, each with the greater number the more specific it is.
func (t *index) hostOrder(host string) map[uint32]int {
	order := make(map[uint32]int)
	at, pos, ok := t.hosts.next(host, 0)
	for ok {
		order[at] = -len(order)
		at, pos, ok = t.hosts.next(host, pos)
	}
	return order
}

// visited returns the path nodes that match the request's path, on the sites given.
func (t *index) visited(p *probe, sites map[uint32]int) map[uint32]bool {
	path := p.head.Path()
	nodes := make(map[uint32]bool)
	for at := range sites {
		s := &t.sites[at]
		if n, ok := t.exact(s, path); ok {
			nodes[n] = true
		}
		for _, r := range t.regexes[s.regexes.from:s.regexes.to] {
			if r.pattern.match(path) {
				nodes[r.node] = true
			}
		}
		n := t.deepest(s, path)
		for nodes[n] = true; t.nodes[n].kind != rootNode; nodes[n] = true {
			n = t.nodes[n].up
		}
	}
	return nodes
}

func (t *index) standing(rank, at uint32, visited bool, order map[uint32]int, p *probe, host string) standing {
	s := standing{rank: rank, site: at}
	specific, matches := order[at]
	switch {
	case !matches:
		s.closeness = commonSuffix(t.sites[at].host, host)
	case !visited:
		s.stage = stagePath
		s.closeness = commonPrefix(t.rules[rank].path, p.head.Path())
	default:
		s.stage, s.failed = t.fails(&t.rules[rank], p)
		s.closeness = specific
	}
	return s
}

// loss words why a rule lost. first is the winner, if there is one.
func (t *index) loss(s, first *standing, p *probe, host string) (reason, detail string) {
	r := &t.rules[s.rank]
	switch s.stage {
	case stageHost:
		return ReasonHost, fmt.Sprintf("host %.100q does not match %q", host, t.sites[s.site].host)
	case stagePath:
		return ReasonPath, fmt.Sprintf("path %.100q does not match %s", p.head.Path(), r.pathText())
	case stageMethod:
		return ReasonMethod, fmt.Sprintf("method is %.100q, the rule wants %q", p.head.Method, r.method)
	case stageHeader:
		return ReasonHeader, t.conditionText("header", s.failed, p)
	case stageQuery:
		return ReasonQuery, t.conditionText("query parameter", s.failed, p)
	default:
		return ReasonPrecedence, "matches too, but " + t.lesser(s, first)
	}
}

func (t *index) conditionText(kind string, c *condition, p *probe) string {
	name, wants := t.names.known[c.key-firstName].text, "the value"
	if c.regex != nil {
		wants = "a match of"
	}
	value, ok := p.value(c.key)
	if !ok {
		return fmt.Sprintf("%s %s is absent, the rule wants %s %.100q", kind, name, wants, c.value)
	}
	return fmt.Sprintf("%s %s is %.100q, the rule wants %s %.100q", kind, name, value, wants, c.value)
}

// lesser says at which step of the precedence the loser falls behind the winner.
func (t *index) lesser(loser, winner *standing) string {
	l, w := &t.rules[loser.rank], &t.rules[winner.rank]
	lq, wq := l.conditions.to-l.conditions.from-l.headers, w.conditions.to-w.conditions.from-w.headers
	switch {
	case loser.site != winner.site:
		return hostText(t.sites[loser.site].host) + " is less specific than " + hostText(t.sites[winner.site].host)
	case l.specificity != w.specificity, l.specificity == 0 && (l.class != w.class || len(l.path) != len(w.path)):
		return l.pathText() + " is less specific than " + w.pathText()
	case (l.method == "") != (w.method == ""):
		return "it names no method, the winner names " + w.method
	case l.headers != w.headers:
		return fmt.Sprintf("it matches on %d headers, the winner on %d", l.headers, w.headers)
	case lq != wq:
		return fmt.Sprintf("it matches on %d query parameters, the winner on %d", lq, wq)
	default:
		return "the winner, equally specific, stands earlier (older object, then namespace and name, then order in the object)"
	}
}

// describe lists a rule's conditions without those on header and parameter values.
func (t *index) describe(rank uint32) string {
	r := &t.rules[rank]
	text := r.pathText()
	if r.method != "" {
		text += ", method " + r.method
	}
	for _, c := range t.conditions[r.conditions.from:r.conditions.to] {
		kind := ", header "
		if t.names.known[c.key-firstName].query {
			kind = ", query parameter "
		}
		text += kind + t.names.known[c.key-firstName].text
	}
	return text
}

func (r *rule) pathText() string {
	switch r.class {
	case classExact:
		return "Exact " + r.path
	case classRegex:
		return "RegularExpression " + r.path
	default:
		return "PathPrefix " + cmp.Or(r.path, "/")
	}
}

func hostText(host string) string {
	if host == "" {
		return "no hostname"
	}
	return "hostname " + host
}

func onHost(host string) string {
	if host == "" {
		return ""
	}
	return " on hostname " + host
}

func commonPrefix(a, b string) int {
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return n
}

// commonSuffix counts the bytes that a pattern and a host end in alike.
func commonSuffix(pattern, host string) int {
	pattern = strings.TrimPrefix(pattern, "*")
	n := 0
	for n < len(pattern) && n < len(host) && pattern[len(pattern)-1-n] == host[len(host)-1-n] {
		n++
	}
	return n
}
