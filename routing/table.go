package routing

import (
	"errors"
	"fmt"

	"gatehouse.dev/gatehouse/gateway/exchange"
)

// How a table finds the rule.
//
// Precedence is a total order that does not depend on the request, except for the host. So Compile sorts the rules once: a rule's
// rank is its place in that order, and the winner on a host is the matching rule of the least rank. Finding it is a walk over
// nodes that each hold a few ranks. Nodes are joined by edges (node, key, value) -> node that all lie in one hash table, whatever
// they stand for: a path segment, a whole path, a header's value. For the rules, in order of rank,
//
//	0  shop.test  Exact /cart
//	1  shop.test  Prefix /api/v1   GET
//	2  shop.test  Prefix /api      x-tenant: red
//	3  shop.test  Prefix /api      x-tenant: blue    ... and thousands more
//	9  *.test     Prefix /
//
// the table is
//
//	hosts   shop.test -> site A, *.test -> site B
//	edges   A   exact    "/cart" -> n1 [0]
//	        A   segment  "api"   -> n2 [] asks for x-tenant
//	        n2  segment  "v1"    -> n3 [1]
//	        n2  x-tenant "red"   -> n4 [2]
//	        n2  x-tenant "blue"  -> n5 [3]
//	B       [9]
//
// and POST /api/v1/users with "x-tenant: blue" goes: site A, no exact edge for the path, no regular expressions, down the segments
// api, v1 (users has no edge) to n3; rule 1 wants GET; up from n3 to the next node with rules, n2, which has none of its own
// but asks for x-tenant: n5 and rule 3, which holds. With "x-tenant: green" n2 has nothing, A has nothing, the host's next pattern
// is *.test, and rule 9 answers: a rule of a less specific host still serves what no rule of the more specific one matches.
//
// The cost is one hash of each segment as deep as the trie has edges, and one of each header or parameter that a node on the way
// asks for, however many rules there are. What stays linear are the distinct regular expressions of one host, and rules that
// share host and path and have no exact condition to tell them apart.

// Rule is a value and the requests it is for.
type Rule[T any] struct {
	// Hosts are exact names in lower case, "*.suffix", or "" for every host. None means every host.
	Hosts []string
	Match Match
	Value T
}

// RuleError says why Compile set a rule aside.
type RuleError struct {
	// Index is the rule's place in the slice given to Compile.
	Index int
	Err   error
}

// Error returns index and reason.
func (e *RuleError) Error() string { return fmt.Sprintf("rule %d: %v", e.Index, e.Err) }

// Unwrap returns the reason.
func (e *RuleError) Unwrap() error { return e.Err }

// Table is a compiled set of rules. It is immutable and safe for concurrent use. A nil Table has no rules.
type Table[T any] struct {
	index  index
	values []T // by rank
}

// Compile makes a table of the rules. Where two rules match a request the one goes first whose hostname has more characters, an exact
// one before a wildcard; then by path: Exact, RegularExpression (longer expression first), PathPrefix (longer first), or by Match.Specificity; then the
// one with a method; with more header matches; with more query matches (HTTPRouteSpec.Hostnames, HTTPRouteRule.Matches); then the one
// earlier in the slice. The caller sorts the slice by age, then namespace and name, then rule and match.
//
// The error joins a *RuleError for every bad rule. The table is never nil: it serves the good ones.
func Compile[T any](rules []Rule[T]) (*Table[T], error) {
	return (*Table[T])(nil).Recompile(rules)
}

// Recompile does as Compile and takes over from t, which may be nil and does not change, the regular expressions that both have.
func (t *Table[T]) Recompile(rules []Rule[T]) (*Table[T], error) {
	b := newBuilder(len(rules))
	if t != nil {
		b.cache.previous = t.index.patterns
	}
	for i := range rules {
		b.add(i, rules[i].Hosts, &rules[i].Match)
	}
	core, ranked := b.finish()
	next := &Table[T]{index: core, values: make([]T, len(ranked))}
	for rank, at := range ranked {
		next.values[rank] = rules[b.drafts[at].order].Value
	}
	return next, errors.Join(b.bad...)
}

// Len returns the number of rules that the table serves.
func (t *Table[T]) Len() int {
	if t == nil {
		return 0
	}
	return len(t.values)
}

// Find returns the value of the rule that the request takes; ok is false if none matches. h.Normalize was called.
func (t *Table[T]) Find(h *exchange.Head) (value T, ok bool) {
	if t == nil {
		return value, false
	}
	p := probe{index: &t.index, head: h}
	rank, _ := t.index.find(&p, h.Host())
	if rank == none {
		return value, false
	}
	return t.values[rank], true
}

// index is the part of a table that does not depend on what the rules lead to.
type index struct {
	hosts Hosts[uint32] // to sites
	sites []site
	nodes []node
	edges map[edge]uint32
	// lists holds the nodes' ranks and the keys that they ask for.
	lists   []uint32
	regexes []pathRegex
	rules   []rule // by rank
	// conditions are the rules' header conditions, then their query conditions, rule by rule.
	conditions []condition
	names      names
	patterns   map[string]*pattern
}

// site is what the rules of one host pattern hang on.
type site struct {
	host string
	// root is the node of the prefix "/".
	root uint32
	// regexes of the site in index.regexes, by their least rank.
	regexes span
	// exact says that the site has exact paths at all.
	exact bool
	// unordered says that rules of the site go first by a specificity of their own: an exact path is not always before an expression, nor
	// that before a prefix, so that all must be looked at.
	unordered bool
}

// pathRegex leads to the rules of a site that share one path expression.
type pathRegex struct {
	pattern *pattern
	node    uint32
	first   uint32 // the least rank below node
}

// span is a part of a slice that belongs to the index.
type span struct{ from, to uint32 }

// node is a place in the walk. A path node stands for a host and a path; a condition node hangs below one and stands for a method,
// header value or query value in addition.
type node struct {
	// up leads from a prefix to the next shorter prefix that has rules, at last to the site's root, which leads to itself; from
	// an exact path or expression to the root; from a condition node to the node that asks.
	up uint32
	// ranks in index.lists, ascending: the rules to check here.
	ranks span
	// asks are keys in index.lists: each may lead to a condition node by the value that the request has.
	asks span
	kind nodeKind
}

type nodeKind uint8

const (
	pathNode nodeKind = iota
	rootNode          // a path node, of the prefix "/"
	conditionNode
)

// edge leads from one node to another if the request has this value under this key.
type edge struct {
	from  uint32
	key   uint32
	value string
}

// Keys with a meaning of their own; those from firstName are names of headers and query parameters.
const (
	keySegment uint32 = iota // one segment of a prefix
	keyExact                 // a whole path
	keyRegex                 // the source of an expression for the path; only Compile follows it
	keyMethod
	firstName
)

// rule is a rule as it is checked once the host and path are known to match.
type rule struct {
	// path is in normal form; a prefix has no trailing slash; an expression is its source.
	path       string
	method     string
	conditions span
	headers    uint32 // how many of the conditions are on headers
	class      class
	// specificity is Match.Specificity.
	specificity uint32
}

// class is a PathType in order of precedence.
type class uint8

const (
	classExact class = iota
	classRegex
	classPrefix
)

func classOf(t PathType) class {
	switch t {
	case PathExact:
		return classExact
	case PathRegex:
		return classRegex
	default:
		return classPrefix
	}
}

// condition is a ValueMatch.
type condition struct {
	key   uint32
	value string
	regex *pattern // nil for an exact match
}

func (c *condition) match(value string) bool {
	if c.regex != nil {
		return c.regex.match(value)
	}
	return c.value == value
}

// stage is how far a rule gets with a request; the further, the closer it is to being the one.
type stage uint8

const (
	stageHost stage = iota
	stagePath
	stageMethod
	stageHeader
	stageQuery
	stageMatched
)

// none is no rank: greater than all.
const none = ^uint32(0)

// manyKeys is how many keys a node may ask for one by one. Beyond it the walk goes by the names that the request has.
const manyKeys = 16

// find returns the rank of the rule that the request takes and the site on which it matched.
func (t *index) find(p *probe, host string) (rank, at uint32) {
	at, pos, ok := t.hosts.next(host, 0)
	for ok {
		if rank = t.findAt(&t.sites[at], p); rank != none {
			return rank, at
		}
		at, pos, ok = t.hosts.next(host, pos)
	}
	return none, 0
}

func (t *index) findAt(s *site, p *probe) uint32 {
	path := p.head.Path()
	best := none
	if n, ok := t.exact(s, path); ok {
		if best = t.pick(n, p, none); best != none && !s.unordered {
			return best
		}
	}
	for i := s.regexes.from; i < s.regexes.to; i++ {
		r := &t.regexes[i]
		if r.first >= best {
			break
		}
		if r.pattern.match(path) {
			best = t.pick(r.node, p, best)
		}
	}
	n := t.deepest(s, path)
	for best == none || s.unordered {
		best = t.pick(n, p, best)
		if t.nodes[n].kind == rootNode {
			break
		}
		n = t.nodes[n].up
	}
	return best
}

// exact returns the node of the rules for exactly this path.
func (t *index) exact(s *site, path string) (uint32, bool) {
	if !s.exact {
		return 0, false
	}
	n, ok := t.edges[edge{s.root, keyExact, path}]
	return n, ok
}

// deepest returns the node of the longest prefix of the path that the trie has. Shorter ones follow by node.up.
func (t *index) deepest(s *site, path string) uint32 {
	n := s.root
	if path == "" || path[0] != '/' { // "*"
		return n
	}
	for from := 1; from < len(path); {
		to := segmentEnd(path, from)
		next, ok := t.edges[edge{n, keySegment, path[from:to]}]
		if !ok {
			break
		}
		n, from = next, to+1
	}
	return n
}

// pick returns the least rank of a matching rule at or below the node that is less than best, or best.
func (t *index) pick(n uint32, p *probe, best uint32) uint32 {
	here := &t.nodes[n]
	for _, rank := range t.lists[here.ranks.from:here.ranks.to] {
		if rank >= best {
			break
		}
		if got, _ := t.fails(&t.rules[rank], p); got == stageMatched {
			best = rank
			break
		}
	}
	asks := t.lists[here.asks.from:here.asks.to]
	if len(asks) > manyKeys {
		for key := range p.keys {
			best = t.follow(n, key, p, best)
		}
		return best
	}
	for _, key := range asks {
		best = t.follow(n, key, p, best)
	}
	return best
}

// follow picks from where the request's value for the key leads.
func (t *index) follow(n, key uint32, p *probe, best uint32) uint32 {
	value, ok := p.value(key)
	if !ok {
		return best
	}
	if n, ok = t.edges[edge{n, key, value}]; !ok {
		return best
	}
	return t.pick(n, p, best)
}

// fails says how far the rule gets with a request whose host and path it matches: to its first condition that does not hold, or to
// stageMatched. Find and Explain both judge by it.
func (t *index) fails(r *rule, p *probe) (stage, *condition) {
	if r.method != "" && r.method != p.head.Method {
		return stageMethod, nil
	}
	list := t.conditions[r.conditions.from:r.conditions.to]
	for i := range list {
		if value, ok := p.value(list[i].key); ok && list[i].match(value) {
			continue
		}
		if uint32(i) < r.headers {
			return stageHeader, &list[i]
		}
		return stageQuery, &list[i]
	}
	return stageMatched, nil
}

// segmentEnd returns where the segment that begins at path[from] ends.
func segmentEnd(path string, from int) int {
	for from < len(path) && path[from] != '/' {
		from++
	}
	return from
}
