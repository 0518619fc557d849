package routing

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"gatehouse.dev/gatehouse/gateway/exchange"
)

// fewRules is how many rules a node checks one by one; with more they are told apart by their conditions.
const fewRules = 8

// builder makes an index: add takes the rules in, finish sorts them by precedence, hangs them into the trie, and splits the nodes
// that got too many.
type builder struct {
	index
	cache  patterns
	drafts []draft
	bad    []error // *RuleError

	// By node, while the index grows.

	ranks [][]uint32
	via   []uint32 // the key of the edge that leads to the node
}

// draft is a rule on its way into the index.
type draft struct {
	rule
	hosts []string
	// precedence sorts before order: the less, the earlier. See precedenceOf.
	precedence uint64
	// order is the rule's place in the caller's slice.
	order int
}

func newBuilder(size int) *builder {
	b := &builder{drafts: make([]draft, 0, size), ranks: make([][]uint32, 0, size), via: make([]uint32, 0, size)}
	b.nodes = make([]node, 0, size)
	return b
}

// add checks and takes in one rule, or notes why not.
func (b *builder) add(order int, hosts []string, m *Match) {
	d := draft{hosts: hosts, order: order}
	for _, host := range hosts {
		if err := ValidateHost(host); err != nil {
			b.bad = append(b.bad, &RuleError{Index: order, Err: err})
			return
		}
	}
	if err := b.compile(m, &d.rule); err != nil {
		b.bad = append(b.bad, &RuleError{Index: order, Err: err})
		return
	}
	d.precedence = precedenceOf(&d.rule)
	b.drafts = append(b.drafts, d)
}

func (b *builder) compile(m *Match, r *rule) error {
	path, err := checkMatch(m)
	if err != nil {
		return err
	}
	r.class, r.path, r.method, r.specificity = classOf(m.PathType), path, m.Method, m.Specificity
	if r.class == classRegex {
		if _, err := b.cache.get(path); err != nil {
			return fmt.Errorf("path: %w", err)
		}
	}
	from := len(b.conditions)
	err = b.addConditions(m.Headers, false)
	r.headers = uint32(len(b.conditions) - from)
	if err == nil {
		err = b.addConditions(m.Query, true)
	}
	if err != nil {
		b.conditions = b.conditions[:from]
		return err
	}
	r.conditions = span{uint32(from), uint32(len(b.conditions))}
	return nil
}

// addConditions appends the conditions of one list. Of several under one name the first counts (HTTPHeaderMatch.Name,
// HTTPQueryParamMatch.Name).
func (b *builder) addConditions(list []ValueMatch, query bool) error {
	from := len(b.conditions)
	for i := range list {
		v := &list[i]
		c := condition{key: b.names.key(v.Name, query), value: v.Value}
		if slices.ContainsFunc(b.conditions[from:], func(o condition) bool { return o.key == c.key }) {
			continue
		}
		if v.Regex {
			regex, err := b.cache.get(v.Value)
			if err != nil {
				kind := "header"
				if query {
					kind = "query parameter"
				}
				return fmt.Errorf("%s %q: %w", kind, v.Name, err)
			}
			c.regex = regex
		}
		b.conditions = append(b.conditions, c)
	}
	return nil
}

// key returns the number of a name, a new one if need be.
func (n *names) key(text string, query bool) uint32 {
	index := &n.query
	if !query {
		text, index = strings.ToLower(text), &n.headers
	}
	if key, ok := (*index)[text]; ok {
		return key
	}
	key := firstName + uint32(len(n.known))
	n.known = append(n.known, name{text: text, query: query})
	if *index == nil {
		*index = make(map[string]uint32)
	}
	(*index)[text] = key
	if query {
		return key
	}
	if id := exchange.IDOf(text); id == exchange.Unknown {
		n.lengths |= lengthBit(text)
	} else {
		if n.byID == nil {
			n.byID = make([]uint32, 1<<8)
		}
		n.byID[id] = key
	}
	return key
}

// precedenceOf packs what decides between rules on one host, highest bits first; a lesser number goes first.
//
//	2 bits   Exact, RegularExpression, PathPrefix; that of PathPrefix for a match with a specificity of its own
//	24 bits  length of the path, longer first; or that specificity, greater first
//	1 bit    method, present first
//	16 bits  header conditions, more first
//	16 bits  query conditions, more first
//
// A prefix counts without its trailing slash. Numbers that do not fit, which no object reaches, count as the largest that does.
func precedenceOf(r *rule) uint64 {
	var noMethod uint64
	if r.method == "" {
		noMethod = 1
	}
	query := r.conditions.to - r.conditions.from - r.headers
	class, length := r.class, len(r.path)
	if r.specificity > 0 {
		class, length = classPrefix, int(r.specificity)
	}
	key := uint64(class)
	key = key<<specificityBits | lessFirst(length, specificityBits)
	key = key<<1 | noMethod
	key = key<<16 | lessFirst(int(r.headers), 16)
	return key<<16 | lessFirst(int(query), 16)
}

// specificityBits hold the length of a path, or Match.Specificity.
const specificityBits = 24

// lessFirst inverts n within so many bits.
func lessFirst(n, bits int) uint64 {
	most := 1<<bits - 1
	return uint64(most - min(n, most))
}

// finish makes the index. It returns the drafts by rank as well.
func (b *builder) finish() (index, []uint32) {
	ranked := b.rank()
	paths := 0
	for i := range b.drafts {
		if b.drafts[i].path != "" {
			paths++
		}
	}
	b.edges = make(map[edge]uint32, paths)
	b.rules = make([]rule, len(b.drafts))
	for rank, at := range ranked {
		b.rules[rank] = b.drafts[at].rule
		b.place(uint32(rank), b.drafts[at].hosts)
	}
	b.gatherRegexes()
	b.skipEmpty()
	b.layOut()
	b.conditions = slices.Clone(b.conditions) // without what append reserved
	b.patterns = b.cache.known
	return b.index, ranked
}

// rank returns the drafts in order of precedence. It sorts small keys, which takes a fraction of the time that sorting drafts does.
func (b *builder) rank() []uint32 {
	type key struct {
		precedence uint64
		draft      uint32 // drafts stand in the caller's order
	}
	keys := make([]key, len(b.drafts))
	for i := range keys {
		keys[i] = key{b.drafts[i].precedence, uint32(i)}
	}
	slices.SortFunc(keys, func(x, y key) int {
		if c := cmp.Compare(x.precedence, y.precedence); c != 0 {
			return c
		}
		return cmp.Compare(x.draft, y.draft)
	})
	ranked := make([]uint32, len(keys))
	for rank := range keys {
		ranked[rank] = keys[rank].draft
	}
	return ranked
}

// place puts a rank on the node of each of its hosts and its path. Ranks come in ascending order.
func (b *builder) place(rank uint32, hosts []string) {
	if len(hosts) == 0 {
		b.placeOn(b.site(""), rank)
	}
	for i, host := range hosts {
		if !slices.Contains(hosts[:i], host) {
			b.placeOn(b.site(host), rank)
		}
	}
}

func (b *builder) placeOn(at, rank uint32) {
	s, r := &b.sites[at], &b.rules[rank]
	s.unordered = s.unordered || r.specificity > 0
	n := s.root
	switch r.class {
	case classExact:
		s.exact = true
		n = b.child(n, keyExact, r.path)
	case classRegex:
		n = b.child(n, keyRegex, r.path)
	default:
		for from := 1; from < len(r.path); {
			to := segmentEnd(r.path, from)
			n = b.child(n, keySegment, r.path[from:to])
			from = to + 1
		}
	}
	b.ranks[n] = append(b.ranks[n], rank)
}

// site returns the site of a host pattern, a new one if need be.
func (b *builder) site(host string) uint32 {
	if at, ok := b.hosts.Get(host); ok {
		return at
	}
	at, root := uint32(len(b.sites)), uint32(len(b.nodes))
	b.sites = append(b.sites, site{host: host, root: root})
	b.newNode(node{up: root, kind: rootNode}, keySegment)
	b.hosts.Set(host, at)
	return at
}

// child returns the node where an edge leads, a new one if need be.
func (b *builder) child(from, key uint32, value string) uint32 {
	e := edge{from, key, value}
	if n, ok := b.edges[e]; ok {
		return n
	}
	kind := pathNode
	if key >= keyMethod {
		kind = conditionNode
	}
	n := b.newNode(node{up: from, kind: kind}, key)
	b.edges[e] = n
	return n
}

func (b *builder) newNode(n node, via uint32) uint32 {
	b.nodes = append(b.nodes, n)
	b.ranks = append(b.ranks, nil)
	b.via = append(b.via, via)
	return uint32(len(b.nodes) - 1)
}

// gatherRegexes lists each site's path expressions. Nodes were made in order of their first rule's rank, so the lists are too.
func (b *builder) gatherRegexes() {
	type found struct{ site, node uint32 }
	var list []found
	at := make(map[uint32]uint32, len(b.sites)) // site by root
	for i := range b.sites {
		at[b.sites[i].root] = uint32(i)
	}
	for n := range b.nodes {
		if b.via[n] == keyRegex {
			list = append(list, found{at[b.nodes[n].up], uint32(n)})
		}
	}
	slices.SortStableFunc(list, func(x, y found) int { return cmp.Compare(x.site, y.site) })
	for _, f := range list {
		first := b.ranks[f.node][0]
		s := &b.sites[f.site].regexes
		if s.from == s.to {
			s.from = uint32(len(b.regexes))
		}
		b.regexes = append(b.regexes, pathRegex{pattern: b.cache.known[b.rules[first].path], node: f.node, first: first})
		s.to = uint32(len(b.regexes))
	}
}

// skipEmpty makes node.up pass over prefixes without rules, so that the way up costs no more than there are prefixes that apply. A node
// comes after the one it was reached from.
func (b *builder) skipEmpty() {
	for n := range b.nodes {
		up := b.nodes[n].up
		if b.nodes[up].kind == pathNode && len(b.ranks[up]) == 0 {
			b.nodes[n].up = b.nodes[up].up
		}
	}
}

// layOut splits the nodes with many rules and writes all lists. Nodes that a split adds come later in the same loop.
func (b *builder) layOut() {
	b.lists = make([]uint32, 0, len(b.rules))
	for n := 0; n < len(b.nodes); n++ {
		here, asks := b.ranks[n], []uint32(nil)
		if len(here) > fewRules {
			here, asks = b.split(uint32(n), here)
		}
		b.nodes[n].ranks = b.list(here)
		b.nodes[n].asks = b.list(asks)
	}
	b.nodes, b.lists = slices.Clone(b.nodes), slices.Clone(b.lists)
}

func (b *builder) list(values []uint32) span {
	from := len(b.lists)
	b.lists = append(b.lists, values...)
	return span{uint32(from), uint32(len(b.lists))}
}

// split moves each rule to below the node by the one of its exact conditions that the fewest others share: among ten thousand tenants
// of three environments, the tenant. A rule that has none stays. asks are the keys used.
//
// Below, a rule is split off again by what is left: each step uses one condition up, so that a hundred values of one header times a
// hundred of another take two steps.
func (b *builder) split(n uint32, ranks []uint32) (stay, asks []uint32) {
	used := b.usedKeys(n)
	shared := make(map[edge]int, len(ranks))
	users := make(map[uint32]int)
	asked := make(map[uint32]bool)
	for _, rank := range ranks {
		for key, value := range b.exactConditions(rank, used) {
			shared[edge{n, key, value}]++
			users[key]++
		}
	}
	for _, rank := range ranks {
		var best edge
		for key, value := range b.exactConditions(rank, used) {
			e := edge{n, key, value}
			if best.key == 0 || shared[e] < shared[best] || shared[e] == shared[best] && users[key] > users[best.key] {
				best = e
			}
		}
		if best.key == 0 {
			stay = append(stay, rank)
			continue
		}
		to := b.child(best.from, best.key, best.value)
		b.ranks[to] = append(b.ranks[to], rank)
		if !asked[best.key] {
			asked[best.key] = true
			asks = append(asks, best.key)
		}
	}
	return stay, asks
}

// usedKeys returns the keys by which a condition node is reached from its path node.
func (b *builder) usedKeys(n uint32) (used []uint32) {
	for ; b.nodes[n].kind == conditionNode; n = b.nodes[n].up {
		used = append(used, b.via[n])
	}
	return used
}

// exactConditions yields the rule's conditions that an edge can stand for: its method and exact values, without those used.
func (b *builder) exactConditions(rank uint32, used []uint32) func(yield func(key uint32, value string) bool) {
	return func(yield func(key uint32, value string) bool) {
		r := &b.rules[rank]
		if r.method != "" && !slices.Contains(used, keyMethod) && !yield(keyMethod, r.method) {
			return
		}
		list := b.conditions[r.conditions.from:r.conditions.to]
		for i := range list {
			c := &list[i]
			if c.regex == nil && !slices.Contains(used, c.key) && !yield(c.key, c.value) {
				return
			}
		}
	}
}
