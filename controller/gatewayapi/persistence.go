package gatewayapi

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/types"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"gatehouse.dev/gatehouse/controller/problem"
	"gatehouse.dev/gatehouse/gateway/config"
)

// persistenceLabel keeps the keys of sessions apart from whatever else is derived from a UID.
const persistenceLabel = "gatehouse.dev session persistence"

// sessionOwner is what says that sessions persist: a rule of a route, a policy, an XBackend.
type sessionOwner struct {
	kind, namespace, name, rule string
	uid                         types.UID
}

func (o sessionOwner) String() string {
	return strings.Join([]string{o.kind, o.namespace, o.name, o.rule}, "/")
}

// sessionPersistence translates spec. A fault's reason is "" when nothing is wrong; otherwise there is no persistence.
func (t *Translator) sessionPersistence(spec *gatewayv1.SessionPersistence, owner sessionOwner) (*config.Persistence, fault) {
	out := &config.Persistence{Key: t.sessionKey(owner)}
	invalid := func(field, format string, args ...any) (*config.Persistence, fault) {
		return nil, fault{field, problem.Invalid, fmt.Sprintf(format, args...)}
	}
	if spec.AbsoluteTimeout != nil {
		d, err := parseDuration(string(*spec.AbsoluteTimeout))
		if err != nil {
			return invalid(".absoluteTimeout", "%v", err)
		}
		out.AbsoluteTimeout = d
	}
	kind := gatewayv1.CookieBasedSessionPersistence
	if spec.Type != nil {
		kind = *spec.Type
	}
	switch {
	case kind == gatewayv1.HeaderBasedSessionPersistence && spec.Header != nil:
		out.Header, out.Name = true, string(spec.Header.Name)
	case kind == gatewayv1.HeaderBasedSessionPersistence:
		return invalid(".header", "type Header needs the name of the header field; set header.name")
	case kind != gatewayv1.CookieBasedSessionPersistence:
		return invalid(".type", "type %q is not known; use Cookie or Header", kind)
	default:
		if f := readCookie(spec, out); f.reason != "" {
			return nil, f
		}
		if out.Name == "" {
			sum := sha256.Sum256([]byte(owner.String()))
			out.Name = "gatehouse-" + hex.EncodeToString(sum[:6])
		}
	}
	if out.Header && framesMessage(out.Name) {
		return invalid(".header.name", "%q frames the message or says whom it is for, and the gateway writes it itself; choose another name", out.Name)
	}
	if !isToken(out.Name) {
		return invalid("", "%q cannot name a cookie or header field; use letters, digits and -", out.Name)
	}
	return out, fault{}
}

// readCookie reads what is said of the cookie. Its path is written into a header field as it stands.
func readCookie(spec *gatewayv1.SessionPersistence, out *config.Persistence) fault {
	out.Path = "/"
	if spec.Cookie == nil {
		return fault{}
	}
	if spec.Cookie.Name != nil {
		out.Name = string(*spec.Cookie.Name)
	}
	if spec.Cookie.Path != nil && *spec.Cookie.Path != "" {
		out.Path = *spec.Cookie.Path
	}
	unfit := func(r rune) bool { return r <= ' ' || r >= 0x7f || r == ';' || r == ',' }
	if out.Path[0] != '/' || strings.ContainsFunc(out.Path, unfit) {
		return fault{".cookie.path", problem.Invalid, fmt.Sprintf("%q is no path for a cookie; begin with / and leave out ; and ,", out.Path)}
	}
	if spec.Cookie.LifetimeType != nil && *spec.Cookie.LifetimeType == gatewayv1.PermanentCookieLifetimeType {
		if out.AbsoluteTimeout <= 0 {
			return fault{".absoluteTimeout", problem.Invalid, "a permanent cookie needs a lifetime; set absoluteTimeout"}
		}
		out.Permanent = true
	}
	return fault{}
}

// sessionKey is the key that seals what clients carry. Every proxy of a cluster gets the same one from the object's UID, which no other
// object ever has. Where there is no UID the seed stands in.
func (t *Translator) sessionKey(owner sessionOwner) config.Secret {
	secret := []byte(owner.uid)
	if owner.uid == "" {
		secret = t.opts.Seed
	}
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(persistenceLabel + "\x00" + owner.String()))
	return mac.Sum(nil)
}

// framesMessage reports whether a field says where a message ends, whom it is for or how its connection goes on, which is the gateway's to say
// (RFC 9110 7.6.1).
func framesMessage(name string) bool {
	switch strings.ToLower(name) {
	case "connection", "content-length", "host", "http2-settings", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade":
		return true
	}
	return false
}

// isToken reports whether s is a token (RFC 9110 5.6.2), which names of fields and cookies are.
func isToken(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return !(r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || strings.ContainsRune("!#$%&'*+-.^_`|~", r))
	})
}

// persistence reads a rule's sessionPersistence.
func (b *routeBuilder) persistence(field string, spec *gatewayv1.SessionPersistence, rule *config.Rule, bad *ruleFault) {
	if spec == nil {
		return
	}
	owner := sessionOwner{kind: b.key.kind, namespace: b.key.namespace, name: b.key.name, rule: rule.Name}
	if rt := b.routes[b.key]; rt != nil && rt.obj != nil {
		owner.uid = rt.obj.GetUID()
	}
	made, wrong := b.sessionPersistence(spec, owner)
	if wrong.reason != "" {
		bad.add(field+".sessionPersistence"+wrong.field, problem.InvalidRule, "%s", wrong.message)
		return
	}
	rule.Persistence = made
}
