package gatewayapi

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"gatehouse.dev/gatehouse/controller/problem"
	"gatehouse.dev/gatehouse/gateway/config"
	"gatehouse.dev/gatehouse/routing"
)

// How a GRPCRoute becomes routing.Match.
//
// A gRPC call is a POST to /SERVICE/METHOD, and so a method match is one on the path:
//
//	service   method   type                path
//	foo.Bar   Get      Exact               Exact /foo.Bar/Get
//	foo.Bar            Exact               PathPrefix /foo.Bar
//	          Get      Exact               RegularExpression /[^/]+/Get
//	foo\..*   G.*      RegularExpression   RegularExpression /(?:foo\..*)/(?:G.*)
//
// The order of precedence is not that of paths, though: the one with more characters in its service goes first, then the one with more
// in its method, whatever the types are (Gateway API: GRPCRouteRule.matches). routing.Match.Specificity says so.

// anyName is one service or method name.
const anyName = "[^/]+"

// specificityBits hold the length of a service or method name, which the API limits to 1,024 characters.
const specificityBits = 11

// grpcRule translates one rule: what is not its matches is what an HTTPRoute has, too.
func (b *routeBuilder) grpcRule(i int, spec *gatewayv1.GRPCRouteRule) *config.Rule {
	like := &gatewayv1.HTTPRouteRule{Name: spec.Name, Filters: grpcFilters(spec.Filters)}
	//lint:ignore SA1019 whoever still sets it is told what becomes of it
	like.SessionPersistence = spec.SessionPersistence
	for j := range spec.BackendRefs {
		like.BackendRefs = append(like.BackendRefs, gatewayv1.HTTPBackendRef{
			BackendRef: spec.BackendRefs[j].BackendRef, Filters: grpcFilters(spec.BackendRefs[j].Filters)})
	}
	return b.ruleMatching(i, like, func(field string, bad *ruleFault) []routing.Match { return b.grpcMatches(field, spec.Matches, bad) })
}

// grpcFilters are the filters of a GRPCRoute as those of an HTTPRoute, which has the same ones under the same names.
func grpcFilters(list []gatewayv1.GRPCRouteFilter) []gatewayv1.HTTPRouteFilter {
	var out []gatewayv1.HTTPRouteFilter
	for _, f := range list {
		out = append(out, gatewayv1.HTTPRouteFilter{
			Type: gatewayv1.HTTPRouteFilterType(f.Type), RequestHeaderModifier: f.RequestHeaderModifier,
			ResponseHeaderModifier: f.ResponseHeaderModifier, RequestMirror: f.RequestMirror, ExtensionRef: f.ExtensionRef,
		})
	}
	return out
}

// grpcMatches translates the matches of a rule; none means every call.
func (b *routeBuilder) grpcMatches(field string, list []gatewayv1.GRPCRouteMatch, bad *ruleFault) []routing.Match {
	var out []routing.Match
	for i := range list {
		at := fmt.Sprintf("%s.matches[%d]", field, i)
		m, wrong, err := grpcMatch(&list[i])
		if err != nil {
			bad.add(at+wrong, problem.InvalidRule, "%v", err)
			continue
		}
		out = append(out, m)
	}
	return out
}

// grpcMatch translates one match. On an error, field is the part that is wrong.
func grpcMatch(spec *gatewayv1.GRPCRouteMatch) (m routing.Match, field string, err error) {
	if spec.Method != nil {
		if field, err = grpcMethod(spec.Method, &m); err != nil {
			return m, field, err
		}
	}
	for i, h := range spec.Headers {
		// Of names that differ in case only, the first counts (Gateway API: GRPCHeaderMatch.name).
		if slices.ContainsFunc(m.Headers, func(v routing.ValueMatch) bool { return strings.EqualFold(v.Name, string(h.Name)) }) {
			continue
		}
		one := routing.ValueMatch{Name: string(h.Name), Value: h.Value}
		if h.Type != nil {
			if one.Regex, err = isRegex(string(*h.Type)); err != nil {
				return m, fmt.Sprintf(".headers[%d].type", i), err
			}
		}
		if err = routing.ValidateMatch(routing.Match{Headers: []routing.ValueMatch{one}}); err != nil {
			return m, fmt.Sprintf(".headers[%d].value", i), err
		}
		m.Headers = append(m.Headers, one)
	}
	return m, "", nil
}

// grpcMethod sets the path that a service and method come to.
func grpcMethod(spec *gatewayv1.GRPCMethodMatch, m *routing.Match) (field string, err error) {
	var service, method string
	if spec.Service != nil {
		service = *spec.Service
	}
	if spec.Method != nil {
		method = *spec.Method
	}
	regex := false
	if spec.Type != nil {
		if regex, err = isRegex(string(*spec.Type)); err != nil {
			return ".method.type", err
		}
	}
	switch {
	case service == "" && method == "":
		return ".method", fmt.Errorf("neither service nor method is set; set one, or leave method out for every call")
	case regex:
		// Each is checked alone: "a)(b" would be valid within the brackets.
		for _, part := range [...]struct{ field, pattern string }{{".method.service", service}, {".method.method", method}} {
			if part.pattern == "" {
				continue
			}
			if err := routing.ValidateMatch(routing.Match{PathType: routing.PathRegex, Path: part.pattern}); err != nil {
				return part.field, err
			}
		}
		m.PathType, m.Path = routing.PathRegex, "/"+grpcPattern(service)+"/"+grpcPattern(method)
	case strings.Contains(service, "/") || strings.Contains(method, "/"):
		return ".method", fmt.Errorf("a service or method name holds no \"/\"; remove it")
	case service == "":
		m.PathType, m.Path = routing.PathRegex, "/"+anyName+"/"+regexp.QuoteMeta(method)
	case method == "":
		m.PathType, m.Path = routing.PathPrefix, "/"+service
	default:
		m.PathType, m.Path = routing.PathExact, "/"+service+"/"+method
	}
	const most = 1<<specificityBits - 1
	m.Specificity = uint32(min(len(service), most))<<specificityBits | uint32(min(len(method), most))
	return ".method", routing.ValidateMatch(*m)
}

// grpcPattern is an expression for one name; "" is any.
func grpcPattern(expression string) string {
	if expression == "" {
		return anyName
	}
	return "(?:" + expression + ")"
}
