package gatewayapi

import (
	"fmt"
	"slices"
	"strings"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"gatehouse.dev/gatehouse/auth/extauthz"
	"gatehouse.dev/gatehouse/controller/problem"
	"gatehouse.dev/gatehouse/filters"
	"gatehouse.dev/gatehouse/filters/cors"
	"gatehouse.dev/gatehouse/filters/headers"
	"gatehouse.dev/gatehouse/filters/mirror"
	"gatehouse.dev/gatehouse/filters/pathmod"
	"gatehouse.dev/gatehouse/filters/redirect"
	"gatehouse.dev/gatehouse/filters/rewrite"
	"gatehouse.dev/gatehouse/gateway/config"
)

// filters translates the filters of a rule or backend. What cannot be built goes to bad, and the caller fails closed.
func (b *routeBuilder) filters(field string, list []gatewayv1.HTTPRouteFilter, matches []gatewayv1.HTTPRouteMatch, bad faults) []config.Policy {
	if len(list) == 0 {
		return nil
	}
	var out []config.Policy
	seen := make(map[gatewayv1.HTTPRouteFilterType]bool)
	for i := range list {
		f := &list[i]
		at := fmt.Sprintf("%s.filters[%d]", field, i)
		if seen[f.Type] && f.Type != gatewayv1.HTTPRouteFilterRequestMirror {
			bad.add(at, problem.InvalidFilter, "a second filter of type %s; only RequestMirror may be repeated", f.Type)
			continue
		}
		seen[f.Type] = true
		kind, cfg, err := b.filter(at, f, matches)
		switch {
		case err != nil:
			bad.add(at+err.field, err.reason, "%s", err.message)
			continue
		case kind == "":
			continue
		}
		payload := filters.Encode(cfg)
		if err := b.opts.Filters.Validate(kind, payload); err != nil {
			bad.add(at, problem.InvalidFilter, "%v", err)
			continue
		}
		out = append(out, config.Policy{Kind: kind, Payload: payload})
	}
	if seen[gatewayv1.HTTPRouteFilterURLRewrite] && seen[gatewayv1.HTTPRouteFilterRequestRedirect] {
		bad.add(field+".filters", problem.InvalidFilter, "URLRewrite and RequestRedirect exclude each other; remove one")
	}
	return out
}

// filterError says what is wrong with one filter.
type filterError struct {
	// field is below the filter: ".requestRedirect.path".
	field   string
	reason  problem.Reason
	message string
}

func invalidFilter(field, format string, args ...any) *filterError {
	return &filterError{field, problem.InvalidFilter, fmt.Sprintf(format, args...)}
}

// filter translates one filter to its kind and config.
func (b *routeBuilder) filter(at string, f *gatewayv1.HTTPRouteFilter, matches []gatewayv1.HTTPRouteMatch) (kind string, cfg any, err *filterError) {
	missing := func() (string, any, *filterError) {
		return "", nil, invalidFilter("", "a filter of type %s without its settings; fill in the field of that name", f.Type)
	}
	switch f.Type {
	case gatewayv1.HTTPRouteFilterRequestHeaderModifier:
		if f.RequestHeaderModifier == nil {
			return missing()
		}
		return headers.RequestKind, headerConfig(f.RequestHeaderModifier), nil
	case gatewayv1.HTTPRouteFilterResponseHeaderModifier:
		if f.ResponseHeaderModifier == nil {
			return missing()
		}
		return headers.ResponseKind, headerConfig(f.ResponseHeaderModifier), nil
	case gatewayv1.HTTPRouteFilterRequestRedirect:
		if f.RequestRedirect == nil {
			return missing()
		}
		cfg, err := redirectConfig(f.RequestRedirect, matches)
		return redirect.Kind, cfg, err
	case gatewayv1.HTTPRouteFilterURLRewrite:
		if f.URLRewrite == nil {
			return missing()
		}
		cfg := rewrite.Config{Hostname: hostname(f.URLRewrite.Hostname)}
		cfg.Path, err = pathConfig(".urlRewrite.path", f.URLRewrite.Path, matches)
		return rewrite.Kind, cfg, err
	case gatewayv1.HTTPRouteFilterRequestMirror:
		if f.RequestMirror == nil {
			return missing()
		}
		return mirror.Kind, b.mirrorConfig(at, f.RequestMirror), nil
	case gatewayv1.HTTPRouteFilterCORS:
		if f.CORS == nil {
			return missing()
		}
		return cors.Kind, corsConfig(f.CORS), nil
	case gatewayv1.HTTPRouteFilterExternalAuth:
		if f.ExternalAuth == nil {
			return missing()
		}
		return extauthz.Kind, b.extAuth(at, f.ExternalAuth), nil
	case gatewayv1.HTTPRouteFilterExtensionRef:
		return "", nil, invalidFilter(".extensionRef", "this version has no extension filters, and requests must not pass without it; "+
			"remove the filter")
	}
	return "", nil, &filterError{".type", problem.UnsupportedValue, fmt.Sprintf("filter type %q is not known; remove the filter", f.Type)}
}

// headerConfig keeps, of entries that name one field twice in a list, the first (Gateway API: HTTPHeader.name).
func headerConfig(f *gatewayv1.HTTPHeaderFilter) headers.Config {
	fields := func(list []gatewayv1.HTTPHeader) (out []headers.Field) {
		for _, h := range list {
			if !slices.ContainsFunc(out, func(f headers.Field) bool { return strings.EqualFold(f.Name, string(h.Name)) }) {
				out = append(out, headers.Field{Name: string(h.Name), Value: h.Value})
			}
		}
		return out
	}
	return headers.Config{Set: fields(f.Set), Add: fields(f.Add), Remove: f.Remove}
}

func redirectConfig(f *gatewayv1.HTTPRequestRedirectFilter, matches []gatewayv1.HTTPRouteMatch) (cfg redirect.Config, err *filterError) {
	cfg.Hostname, cfg.StatusCode = hostname(f.Hostname), 302
	if f.Scheme != nil {
		cfg.Scheme = *f.Scheme
	}
	if f.StatusCode != nil {
		cfg.StatusCode = *f.StatusCode
	}
	if f.Port != nil {
		if *f.Port < 1 || *f.Port > 65535 {
			return cfg, invalidFilter(".requestRedirect.port", "port %d is not between 1 and 65535", *f.Port)
		}
		cfg.Port = uint16(*f.Port)
	}
	cfg.Path, err = pathConfig(".requestRedirect.path", f.Path, matches)
	return cfg, err
}

func hostname(h *gatewayv1.PreciseHostname) string {
	if h == nil {
		return ""
	}
	return strings.ToLower(string(*h))
}

// pathConfig translates a path modifier. Replacing a prefix needs to know which one: the rule must have one match, and that a prefix
// (Gateway API: HTTPPathModifier.replacePrefixMatch). A rule without matches has the prefix "/".
func pathConfig(field string, m *gatewayv1.HTTPPathModifier, matches []gatewayv1.HTTPRouteMatch) (*pathmod.Config, *filterError) {
	if m == nil {
		return nil, nil
	}
	switch m.Type {
	case gatewayv1.FullPathHTTPPathModifier:
		if m.ReplaceFullPath == nil {
			return nil, invalidFilter(field, "type ReplaceFullPath without replaceFullPath; set it")
		}
		return &pathmod.Config{Type: pathmod.ReplaceFullPath, Value: *m.ReplaceFullPath}, nil
	case gatewayv1.PrefixMatchHTTPPathModifier:
		if m.ReplacePrefixMatch == nil {
			return nil, invalidFilter(field, "type ReplacePrefixMatch without replacePrefixMatch; set it")
		}
		prefix, ok := onlyPrefix(matches)
		if !ok {
			return nil, invalidFilter(field, "ReplacePrefixMatch needs exactly one match in the rule, of type PathPrefix; split the rule")
		}
		return &pathmod.Config{Type: pathmod.ReplacePrefixMatch, Value: *m.ReplacePrefixMatch, MatchedPrefix: prefix}, nil
	}
	return nil, &filterError{field + ".type", problem.UnsupportedValue, fmt.Sprintf("path modifier type %q is not known; use "+
		"ReplaceFullPath or ReplacePrefixMatch", m.Type)}
}

func onlyPrefix(matches []gatewayv1.HTTPRouteMatch) (string, bool) {
	switch {
	case len(matches) == 0:
		return "/", true
	case len(matches) > 1:
		return "", false
	}
	path := matches[0].Path
	switch {
	case path == nil || path.Type == nil && path.Value == nil:
		return "/", true
	case path.Type != nil && *path.Type != gatewayv1.PathMatchPathPrefix:
		return "", false
	case path.Value == nil:
		return "/", true
	}
	return *path.Value, true
}

// mirrorConfig resolves where the copies go. A reference that leads nowhere mirrors nothing, and the request itself is served (Gateway
// API: HTTPRequestMirrorFilter.backendRef, "must be dropped").
func (b *routeBuilder) mirrorConfig(at string, f *gatewayv1.HTTPRequestMirrorFilter) mirror.Config {
	cfg := mirror.Config{Percent: f.Percent}
	got := b.resolve(at+".requestMirror.backendRef", "the mirror", f.BackendRef)
	if got.reason != "" {
		cfg.Invalid = string(got.reason)
	} else {
		cfg.Cluster = got.target.String()
	}
	if f.Fraction != nil {
		cfg.Fraction = &mirror.Fraction{Numerator: f.Fraction.Numerator, Denominator: 100}
		if f.Fraction.Denominator != nil {
			cfg.Fraction.Denominator = *f.Fraction.Denominator
		}
	}
	return cfg
}

func corsConfig(f *gatewayv1.HTTPCORSFilter) cors.Config {
	return cors.Config{
		AllowOrigins:     toStrings(f.AllowOrigins),
		AllowCredentials: f.AllowCredentials != nil && *f.AllowCredentials,
		AllowMethods:     toStrings(f.AllowMethods),
		AllowHeaders:     toStrings(f.AllowHeaders),
		ExposeHeaders:    toStrings(f.ExposeHeaders),
		MaxAge:           f.MaxAge,
	}
}

func toStrings[T ~string](list []T) []string {
	var out []string
	for _, s := range list {
		out = append(out, string(s))
	}
	return out
}
