package gatewayapi

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"regexp"
	"strings"
	"testing"
	"time"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"gatehouse.dev/gatehouse/controller/problem"
	"gatehouse.dev/gatehouse/gateway/config"
)

// TestRuleRefused holds what the schema of HTTPRoute rejects too. A State may hold it all the same, from a cluster whose CRDs are of
// another version, and it must not widen what the route does.
func TestRuleRefused(t *testing.T) {
	redirect := gatewayv1.HTTPRouteFilter{Type: gatewayv1.HTTPRouteFilterRequestRedirect,
		RequestRedirect: &gatewayv1.HTTPRequestRedirectFilter{Scheme: ref("https")}}
	rewrite := func(m gatewayv1.HTTPPathModifier) gatewayv1.HTTPRouteFilter {
		return gatewayv1.HTTPRouteFilter{Type: gatewayv1.HTTPRouteFilterURLRewrite, URLRewrite: &gatewayv1.HTTPURLRewriteFilter{Path: &m}}
	}
	prefix := rewrite(gatewayv1.HTTPPathModifier{Type: gatewayv1.PrefixMatchHTTPPathModifier, ReplacePrefixMatch: ref("/x")})
	match := func(kind gatewayv1.PathMatchType, value string) gatewayv1.HTTPRouteMatch {
		return gatewayv1.HTTPRouteMatch{Path: &gatewayv1.HTTPPathMatch{Type: &kind, Value: &value}}
	}
	noBackends := func(r *gatewayv1.HTTPRouteRule) { r.BackendRefs = nil }
	cases := map[string]struct {
		edit   func(*gatewayv1.HTTPRouteRule)
		reason problem.Reason
		field  string
		// dropped: the rule is gone; otherwise it answers 500.
		dropped bool
	}{
		"path type": {func(r *gatewayv1.HTTPRouteRule) { r.Matches = []gatewayv1.HTTPRouteMatch{match("Glob", "/*")} },
			problem.InvalidRule, "matches[0].path.value", true},
		"header match type": {func(r *gatewayv1.HTTPRouteRule) {
			r.Matches = []gatewayv1.HTTPRouteMatch{{Headers: []gatewayv1.HTTPHeaderMatch{{Type: ref(gatewayv1.HeaderMatchType("Glob")), Name: "a", Value: "b"}}}}
		}, problem.InvalidRule, "matches[0].headers[0].type", true},
		"query match type": {func(r *gatewayv1.HTTPRouteRule) {
			r.Matches = []gatewayv1.HTTPRouteMatch{{QueryParams: []gatewayv1.HTTPQueryParamMatch{{Type: ref(gatewayv1.QueryParamMatchType("Glob")), Name: "a", Value: "b"}}}}
		}, problem.InvalidRule, "matches[0].queryParams[0].type", true},
		"query expression": {func(r *gatewayv1.HTTPRouteRule) {
			r.Matches = []gatewayv1.HTTPRouteMatch{{QueryParams: []gatewayv1.HTTPQueryParamMatch{
				{Name: "a", Value: "b"}, {Type: ref(gatewayv1.QueryParamMatchRegularExpression), Name: "c", Value: "("}}}}
		}, problem.InvalidRule, "matches[0].queryParams[1].value", true},
		"method": {func(r *gatewayv1.HTTPRouteRule) {
			r.Matches = []gatewayv1.HTTPRouteMatch{{Method: ref(gatewayv1.HTTPMethod("GET /"))}}
		},
			problem.InvalidRule, "matches[0].method", true},
		"pattern too long": {func(r *gatewayv1.HTTPRouteRule) {
			r.Matches = []gatewayv1.HTTPRouteMatch{match(gatewayv1.PathMatchRegularExpression, "/"+strings.Repeat("a", 5000))}
		}, problem.InvalidRule, "matches[0].path.value", true},
		"filter type": {func(r *gatewayv1.HTTPRouteRule) { r.Filters = []gatewayv1.HTTPRouteFilter{{Type: "Teleport"}} },
			problem.UnsupportedValue, "filters[0].type", false},
		"filter without settings": {func(r *gatewayv1.HTTPRouteRule) {
			r.Filters = []gatewayv1.HTTPRouteFilter{{Type: gatewayv1.HTTPRouteFilterCORS}}
		}, problem.InvalidFilter, "filters[0]", false},
		"filter twice": {func(r *gatewayv1.HTTPRouteRule) {
			noBackends(r)
			r.Filters = []gatewayv1.HTTPRouteFilter{redirect, redirect}
		},
			problem.InvalidFilter, "filters[1]", false},
		"redirect and rewrite": {func(r *gatewayv1.HTTPRouteRule) {
			noBackends(r)
			r.Filters = []gatewayv1.HTTPRouteFilter{redirect, prefix}
		},
			problem.InvalidFilter, "filters", false},
		"redirect with backends": {func(r *gatewayv1.HTTPRouteRule) { r.Filters = []gatewayv1.HTTPRouteFilter{redirect} },
			problem.InvalidFilter, "backendRefs", false},
		"redirect code": {func(r *gatewayv1.HTTPRouteRule) {
			noBackends(r)
			r.Filters = []gatewayv1.HTTPRouteFilter{{Type: gatewayv1.HTTPRouteFilterRequestRedirect,
				RequestRedirect: &gatewayv1.HTTPRequestRedirectFilter{StatusCode: ref(200)}}}
		}, problem.InvalidFilter, "filters[0]", false},
		"prefix of an exact match": {func(r *gatewayv1.HTTPRouteRule) {
			r.Matches, r.Filters = []gatewayv1.HTTPRouteMatch{match(gatewayv1.PathMatchExact, "/a")}, []gatewayv1.HTTPRouteFilter{prefix}
		}, problem.InvalidFilter, "filters[0].urlRewrite.path", false},
		"prefix of two matches": {func(r *gatewayv1.HTTPRouteRule) {
			r.Matches = []gatewayv1.HTTPRouteMatch{match(gatewayv1.PathMatchPathPrefix, "/a"), match(gatewayv1.PathMatchPathPrefix, "/b")}
			r.Filters = []gatewayv1.HTTPRouteFilter{prefix}
		}, problem.InvalidFilter, "filters[0].urlRewrite.path", false},
		"path modifier type": {func(r *gatewayv1.HTTPRouteRule) {
			r.Filters = []gatewayv1.HTTPRouteFilter{rewrite(gatewayv1.HTTPPathModifier{Type: "ReplaceSuffix"})}
		}, problem.UnsupportedValue, "filters[0].urlRewrite.path.type", false},
		"duration": {func(r *gatewayv1.HTTPRouteRule) {
			r.Timeouts = &gatewayv1.HTTPRouteTimeouts{Request: ref(gatewayv1.Duration("1.5s"))}
		},
			problem.InvalidRule, "timeouts.request", false},
		"backend timeout longer than the request's": {func(r *gatewayv1.HTTPRouteRule) {
			r.Timeouts = &gatewayv1.HTTPRouteTimeouts{Request: ref(gatewayv1.Duration("1s")), BackendRequest: ref(gatewayv1.Duration("2s"))}
		}, problem.InvalidRule, "timeouts.backendRequest", false},
		"retry code": {func(r *gatewayv1.HTTPRouteRule) {
			r.Retry = &gatewayv1.HTTPRouteRetry{Codes: []gatewayv1.HTTPRouteRetryStatusCode{200}}
		},
			problem.InvalidRule, "retry.codes[0]", false},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			st := world(1)
			tc.edit(&st.HTTPRoutes[key("app-0000")].Spec.Rules[0])
			plan := translator(t).Translate(st)
			if len(plan.Problems) != 1 {
				t.Fatalf("problems %v, want one", plan.Problems)
			}
			if p := plan.Problems[0]; p.Reason != tc.reason || p.Field != "spec.rules[0]."+tc.field || p.SetAside != "rule 0" {
				t.Errorf("problem %v with setAside %q; want %s at spec.rules[0].%s", p, p.SetAside, tc.reason, tc.field)
			}
			rules := plan.Config.Listeners[0].Routes[0].Rules
			if tc.dropped {
				if len(rules) != 1 || rules[0].Name != "1" {
					t.Errorf("rules %+v, want rule 1 only", rules)
				}
				return
			}
			if len(rules) != 2 {
				t.Fatalf("%d rules, want both", len(rules))
			}
			if r := rules[0]; len(r.Filters) != 0 || len(r.Backends) != 1 || r.Backends[0].Invalid != string(tc.reason) || r.Backends[0].Weight == 0 {
				t.Errorf("rule %+v, want one that answers 500", r)
			}
		})
	}
}

// TestHostnamesInvalid: a route whose hostnames are none serves nothing; without any it would serve every host. They do not
// turn into that.
func TestHostnamesInvalid(t *testing.T) {
	st := world(1)
	st.HTTPRoutes[key("app-0000")].Spec.Hostnames = []gatewayv1.Hostname{"a.*.example", ""}
	plan := translator(t).Translate(st)
	if routes := plan.Config.Listeners[0].Routes; len(routes) != 0 {
		t.Errorf("the route serves %q", routes[0].Hostnames)
	}
	if len(plan.Problems) != 2 || plan.Problems[0].Reason != problem.UnsupportedValue {
		t.Errorf("problems %v, want one for each hostname", plan.Problems)
	}
}

// TestDuplicateMatches: of header names that differ in case only, the first counts.
func TestDuplicateMatches(t *testing.T) {
	m, _, err := match(&gatewayv1.HTTPRouteMatch{
		Headers:     []gatewayv1.HTTPHeaderMatch{{Name: "X-A", Value: "1"}, {Name: "x-a", Value: "2"}},
		QueryParams: []gatewayv1.HTTPQueryParamMatch{{Name: "a", Value: "1"}, {Name: "A", Value: "2"}, {Name: "a", Value: "3"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(m.Headers) != 1 || m.Headers[0].Value != "1" || len(m.Query) != 2 || m.Query[0].Value != "1" {
		t.Errorf("match %+v", m)
	}
}

func TestParseDuration(t *testing.T) {
	cases := map[string]struct {
		want time.Duration
		ok   bool
	}{
		"0s": {0, true}, "1h": {time.Hour, true}, "01h": {time.Hour, true}, "500ms": {500 * time.Millisecond, true},
		"1h2h20m10m": {3*time.Hour + 30*time.Minute, true}, "10s30m1h": {time.Hour + 30*time.Minute + 10*time.Second, true},
		"99999h": {99999 * time.Hour, true}, "1m5ms": {time.Minute + 5*time.Millisecond, true},
		"": {}, "0": {}, "1": {}, "1m1": {}, "1d": {}, "1us": {}, "1.5s": {}, "-1s": {}, "+1s": {}, "100000s": {}, "1s1s1s1s1s": {}, "s": {}, "1 s": {},
	}
	for text, tc := range cases {
		t.Run(text, func(t *testing.T) {
			got, err := parseDuration(text)
			if (err == nil) != tc.ok || got != tc.want {
				t.Errorf("parseDuration(%q) = %v, %v; want %v, ok %t", text, got, err, tc.want, tc.ok)
			}
		})
	}
}

// FuzzParseDuration holds the parser against the words of GEP-2257: a regular expression and time.ParseDuration.
func FuzzParseDuration(f *testing.F) {
	for _, seed := range []string{"", "1h", "1h30m10s500ms", "1ms1m", "99999h99999h99999h99999h", "1s1s1s1s1s", "1.5s", "-1s", "1mss", "1h "} {
		f.Add(seed)
	}
	grammar := regexp.MustCompile(`^([0-9]{1,5}(h|m|s|ms)){1,4}$`)
	f.Fuzz(func(t *testing.T, s string) {
		got, err := parseDuration(s)
		want, wantErr := time.ParseDuration(s)
		if !grammar.MatchString(s) {
			if err == nil {
				t.Fatalf("parseDuration(%q) = %v; want an error", s, got)
			}
			return
		}
		if wantErr != nil || err != nil || got != want || got < 0 {
			t.Fatalf("parseDuration(%q) = %v, %v; want %v, %v", s, got, err, want, wantErr)
		}
	})
}

// pair makes a self-signed certificate.
func pair(t *testing.T, from, to time.Time) (chain string, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "x"}, NotBefore: from, NotAfter: to}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})
}

func TestExpiry(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	cases := map[string]struct {
		from, to time.Time
		want     string
	}{
		"valid":         {now.Add(-time.Hour), now.Add(time.Hour), ""},
		"expired":       {now.Add(-2 * time.Hour), now.Add(-time.Hour), "expired"},
		"not yet valid": {now.Add(time.Hour), now.Add(2 * time.Hour), "valid only from"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			chain, key := pair(t, tc.from, tc.to)
			got := Expiry(&config.Config{Certificates: []*config.Certificate{{Name: "n/s", Origin: config.Origin{Kind: "Secret", Name: "s"},
				Chain: chain, Key: key}}}, now)
			switch {
			case tc.want == "" && len(got) != 0:
				t.Errorf("problems %v, want none", got)
			case tc.want != "" && (len(got) != 1 || !strings.Contains(got[0].Message, tc.want)):
				t.Errorf("problems %v, want one with %q", got, tc.want)
			}
		})
	}
}
