package gatewayapi

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"gatehouse.dev/gatehouse/controller/problem"
	"gatehouse.dev/gatehouse/gateway/config"
	"gatehouse.dev/gatehouse/routing"
)

// rule translates one rule. It returns nil for a rule whose matches do not compile: nobody can say which requests it is for. A rule
// that is wrong otherwise keeps its requests and answers them 500 (Gateway API: HTTPRouteFilter.type, "requests that would have been
// processed by that filter MUST receive a HTTP error response"); another rule must not get them.
func (b *routeBuilder) rule(i int, spec *gatewayv1.HTTPRouteRule) *config.Rule {
	return b.ruleMatching(i, spec, func(field string, bad *ruleFault) []routing.Match { return b.matches(field, spec.Matches, bad) })
}

// ruleMatching is rule for what has matches of its own.
func (b *routeBuilder) ruleMatching(i int, spec *gatewayv1.HTTPRouteRule, matches func(field string, bad *ruleFault) []routing.Match) *config.Rule {
	field := fmt.Sprintf("spec.rules[%d]", i)
	rule := &config.Rule{Name: ruleName(i, spec.Name)}
	bad := &ruleFault{b: b, name: rule.Name}
	rule.Matches = matches(field, bad)
	unmatchable := bad.found
	rule.Filters = b.filters(field, spec.Filters, spec.Matches, bad)
	b.timeouts(field, spec.Timeouts, rule, bad)
	b.retry(field, spec.Retry, rule, bad)
	b.combination(field, spec, bad)
	//lint:ignore SA1019 it is served for as long as the API has it
	b.persistence(field, spec.SessionPersistence, rule, bad)
	for j := range spec.BackendRefs {
		rule.Backends = append(rule.Backends, b.backend(fmt.Sprintf("%s.backendRefs[%d]", field, j), &spec.BackendRefs[j], spec.Matches))
	}
	switch {
	case unmatchable:
		return nil
	case bad.found:
		b.bad[len(b.bad)-1].closed = true
		return &config.Rule{Name: rule.Name, Matches: rule.Matches, Backends: []config.Backend{{Invalid: string(bad.reason), Weight: 1}}}
	}
	b.leadRule(rule, spec)
	return rule
}

// ruleName is the rule's name, or its index.
func ruleName(i int, name *gatewayv1.SectionName) string {
	if name != nil && *name != "" {
		return string(*name)
	}
	return strconv.Itoa(i)
}

// leadRule notes the targets of a rule that is in order.
func (b *routeBuilder) leadRule(rule *config.Rule, spec *gatewayv1.HTTPRouteRule) {
	b.leadFilters(spec.Filters)
	for i := range rule.Backends {
		if rule.Backends[i].Invalid != "" {
			continue
		}
		b.lead(b.pass.resolve(b.key.kind, b.key.namespace, spec.BackendRefs[i].BackendObjectReference).target)
		b.leadFilters(spec.BackendRefs[i].Filters)
	}
}

// ruleFault collects what is wrong with a rule.
type ruleFault struct {
	b     *routeBuilder
	name  string
	found bool
	// reason is that of the first problem.
	reason problem.Reason
}

func (f *ruleFault) add(field string, reason problem.Reason, format string, args ...any) {
	f.b.problem(field, reason, "rule "+f.name, format, args...)
	if !f.found {
		f.found, f.reason = true, reason
		f.b.bad = append(f.b.bad, badRule{name: f.name, message: fmt.Sprintf(format, args...)})
	}
}

// combination checks what the schema checks too, for objects that did not pass it.
func (b *routeBuilder) combination(field string, spec *gatewayv1.HTTPRouteRule, bad *ruleFault) {
	redirects := slices.ContainsFunc(spec.Filters, func(f gatewayv1.HTTPRouteFilter) bool { return f.RequestRedirect != nil })
	if redirects && len(spec.BackendRefs) > 0 {
		bad.add(field+".backendRefs", problem.InvalidFilter, "a rule that redirects has no backends; remove either")
	}
}

// matches translates the matches of a rule; none means every request.
func (b *routeBuilder) matches(field string, list []gatewayv1.HTTPRouteMatch, bad *ruleFault) []routing.Match {
	out := make([]routing.Match, 0, len(list))
	for i := range list {
		at := fmt.Sprintf("%s.matches[%d]", field, i)
		m, wrong, err := match(&list[i])
		if err != nil {
			bad.add(at+wrong, problem.InvalidRule, "%v", err)
			continue
		}
		out = append(out, m)
	}
	if len(out) == 0 {
		return nil
	}
	return out
}

// match translates one match. On an error, field is the part that is wrong.
func match(spec *gatewayv1.HTTPRouteMatch) (m routing.Match, field string, err error) {
	if spec.Path != nil {
		m.PathType, m.Path = routing.PathPrefix, "/"
		if spec.Path.Type != nil {
			m.PathType = routing.PathType(*spec.Path.Type)
		}
		if spec.Path.Value != nil {
			m.Path = *spec.Path.Value
		}
	}
	if spec.Method != nil {
		m.Method = string(*spec.Method)
	}
	for i, h := range spec.Headers {
		// Of names that differ in case only, the first counts (Gateway API: HTTPHeaderMatch.name).
		if slices.ContainsFunc(m.Headers, func(v routing.ValueMatch) bool { return strings.EqualFold(v.Name, string(h.Name)) }) {
			continue
		}
		one := routing.ValueMatch{Name: string(h.Name), Value: h.Value}
		if h.Type != nil {
			if one.Regex, err = isRegex(string(*h.Type)); err != nil {
				return m, fmt.Sprintf(".headers[%d].type", i), err
			}
		}
		m.Headers = append(m.Headers, one)
	}
	for i, q := range spec.QueryParams {
		if slices.ContainsFunc(m.Query, func(v routing.ValueMatch) bool { return v.Name == string(q.Name) }) {
			continue
		}
		one := routing.ValueMatch{Name: string(q.Name), Value: q.Value}
		if q.Type != nil {
			if one.Regex, err = isRegex(string(*q.Type)); err != nil {
				return m, fmt.Sprintf(".queryParams[%d].type", i), err
			}
		}
		m.Query = append(m.Query, one)
	}
	if err = routing.ValidateMatch(m); err != nil {
		return m, culprit(spec, m), err
	}
	return m, "", nil
}

func isRegex(kind string) (bool, error) {
	switch kind {
	case "", "Exact":
		return false, nil
	case "RegularExpression":
		return true, nil
	}
	return false, fmt.Errorf("type %q is unknown; use Exact or RegularExpression", kind)
}

// culprit finds the part of a match that does not validate.
func culprit(spec *gatewayv1.HTTPRouteMatch, m routing.Match) string {
	if routing.ValidateMatch(routing.Match{PathType: m.PathType, Path: m.Path}) != nil {
		return ".path.value"
	}
	for _, h := range m.Headers {
		if routing.ValidateMatch(routing.Match{Headers: []routing.ValueMatch{h}}) != nil {
			i := slices.IndexFunc(spec.Headers, func(s gatewayv1.HTTPHeaderMatch) bool { return string(s.Name) == h.Name })
			return fmt.Sprintf(".headers[%d].value", i)
		}
	}
	for _, q := range m.Query {
		if routing.ValidateMatch(routing.Match{Query: []routing.ValueMatch{q}}) != nil {
			i := slices.IndexFunc(spec.QueryParams, func(s gatewayv1.HTTPQueryParamMatch) bool { return string(s.Name) == q.Name })
			return fmt.Sprintf(".queryParams[%d].value", i)
		}
	}
	return ".method"
}

// timeouts reads the rule's timeouts; "0s" is none.
func (b *routeBuilder) timeouts(field string, spec *gatewayv1.HTTPRouteTimeouts, rule *config.Rule, bad *ruleFault) {
	if spec == nil {
		return
	}
	rule.RequestTimeout = readDuration(field+".timeouts.request", spec.Request, bad)
	rule.BackendTimeout = readDuration(field+".timeouts.backendRequest", spec.BackendRequest, bad)
	if rule.RequestTimeout > 0 && rule.BackendTimeout > rule.RequestTimeout {
		bad.add(field+".timeouts.backendRequest", problem.InvalidRule, "backendRequest %s is longer than request %s; it must not be",
			*spec.BackendRequest, *spec.Request)
	}
}

// retry reads when to try again. Without attempts it is one; zero attempts switch it off (Gateway API: HTTPRouteRetry.attempts).
// Without codes only failures before the backend processed the request are tried again.
func (b *routeBuilder) retry(field string, spec *gatewayv1.HTTPRouteRetry, rule *config.Rule, bad *ruleFault) {
	if spec == nil {
		return
	}
	retry := &config.Retry{Attempts: 1, Backoff: readDuration(field+".retry.backoff", spec.Backoff, bad)}
	if spec.Attempts != nil {
		retry.Attempts = *spec.Attempts
	}
	for i, code := range spec.Codes {
		if code < 400 || code > 599 {
			bad.add(fmt.Sprintf("%s.retry.codes[%d]", field, i), problem.InvalidRule, "code %d is no error; use 400 to 599", code)
			continue
		}
		retry.Codes = append(retry.Codes, int(code))
	}
	slices.Sort(retry.Codes)
	retry.Codes = slices.Compact(retry.Codes)
	if retry.Attempts > 0 {
		rule.Retry = retry
	}
}

// backend translates one backendRef of a rule.
func (b *routeBuilder) backend(field string, spec *gatewayv1.HTTPBackendRef, matches []gatewayv1.HTTPRouteMatch) config.Backend {
	out := config.Backend{Weight: 1}
	if spec.Weight != nil {
		out.Weight = uint32(max(*spec.Weight, 0))
	}
	setAside := "backend " + string(spec.Name)
	got := b.resolve(field, setAside, spec.BackendObjectReference)
	bad := &backendFault{b: b, setAside: setAside}
	filters := b.filters(field, spec.Filters, matches, bad)
	switch {
	case got.reason != "":
		out.Invalid = string(got.reason)
	case bad.found:
		out.Invalid = string(problem.InvalidFilter)
	default:
		out.Cluster, out.Filters = got.target.String(), filters
	}
	return out
}

// backendFault collects what is wrong with a backend beside its reference: its share is answered 500, the rule goes on.
type backendFault struct {
	b        *routeBuilder
	setAside string
	found    bool
}

func (f *backendFault) add(field string, reason problem.Reason, format string, args ...any) {
	f.found = true
	f.b.problem(field, reason, f.setAside, format, args...)
	// An invalid backendRef makes ResolvedRefs false, whatever is invalid about it (Gateway API: HTTPBackendRef).
	f.b.unresolved(reason, field+": "+fmt.Sprintf(format, args...))
}

// faults takes what is wrong with a rule or backend.
type faults interface {
	add(field string, reason problem.Reason, format string, args ...any)
}

// readDuration reads a Gateway API duration; nil is 0.
func readDuration(field string, spec *gatewayv1.Duration, bad faults) time.Duration {
	if spec == nil {
		return 0
	}
	d, err := parseDuration(string(*spec))
	if err != nil {
		bad.add(field, problem.InvalidRule, "%v", err)
	}
	return d
}

// parseDuration reads a duration as GEP-2257 has it, a subset of Go's:
//
//	duration = 1*4( 1*5DIGIT unit )
//	unit     = "h" / "m" / "s" / "ms"
func parseDuration(s string) (time.Duration, error) {
	rest, components := s, 0
	for ; rest != "" && components < 5; components++ {
		digits := 0
		for digits < len(rest) && rest[digits] >= '0' && rest[digits] <= '9' {
			digits++
		}
		unit := 1
		if strings.HasPrefix(rest[digits:], "ms") {
			unit = 2
		}
		if digits == 0 || digits > 5 || digits == len(rest) || !strings.ContainsRune("hms", rune(rest[digits])) {
			components = 0
			break
		}
		rest = rest[digits+unit:]
	}
	if components == 0 || components > 4 {
		return 0, fmt.Errorf("%q is no duration; write up to four numbers of at most five digits, each with h, m, s or ms: 1h30m, 500ms", s)
	}
	return time.ParseDuration(s)
}
