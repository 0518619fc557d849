// Package format is what travels on the wire between controller and proxy: which resources a configuration is cut into, what they are
// called, and how each is written down. Both ends use it. README.md of the wire shows examples.
//
// A resource has a name ("route/HTTPRoute/shop/cart"), a kind, which is the type URL of its payload, and a version, which is a hash of
// the payload: the same content has the same version in every process that ever runs.
package format

import (
	"crypto/sha256"
	"encoding/base64"
	jsonv1 "encoding/json"
	"encoding/json/jsontext"
	"encoding/json/v2"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"
	"unicode/utf8"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"gatehouse.dev/gatehouse/gateway/config"
)

// Subscription is the type URL that a proxy subscribes to: its whole configuration, so that one response is one consistent change.
const Subscription = "gatehouse.dev/wire.v1.Config"

// The type URLs of the payloads.
const (
	TypeListener    = "gatehouse.dev/wire.v1.Listener"
	TypePage        = "gatehouse.dev/wire.v1.Page"
	TypeRoute       = "gatehouse.dev/wire.v1.Route"
	TypeStreamRoute = "gatehouse.dev/wire.v1.StreamRoute"
	TypeCluster     = "gatehouse.dev/wire.v1.Cluster"
	TypeEndpoints   = "gatehouse.dev/wire.v1.Endpoints"
	TypeCertificate = "gatehouse.dev/wire.v1.Certificate"
)

const (
	// MaxResource bounds one resource's payload in bytes. An object of Kubernetes has at most 1.5 MB; a listener carries the CAs of several.
	MaxResource = 8 << 20
	// PartBytes is the size beyond which a change is sent in one more message.
	PartBytes = 2 << 20
	// MaxResponse bounds one message to a proxy: a part that one largest resource was added to, with room for names.
	MaxResponse = MaxResource + 2*PartBytes
	// MaxRequest bounds one message from a proxy. The largest is the first, which lists what the proxy has, some 80 bytes a resource.
	MaxRequest = 64 << 20
)

// Page is a piece of a listener's list of routes. A list of fifty thousand names would be sent whole for each route that comes or goes;
// in pages, one or two of some 64 names are sent.
//
// Where pages begin depends on the names alone: a page begins before each name whose hash says so (Begins), and at the list's start. So
// an insertion changes the page that it falls into and no other, and everybody who cuts the same list gets the same pages:
//
//	list   a b c D e f G h      (D and G begin pages)
//	pages  "": a b c, next D    "D": D e f, next G    "G": G h
//	+ x    "": a b c, next D    "D": D e x f, next G  "G": G h
type Page struct {
	// Listener is the listener's name.
	Listener string `json:"listener"`
	// First is the name that the page begins with; "" for the list's first page.
	First string `json:"first"`
	// Routes are names of resources, route or stream route, in order of precedence.
	Routes []string `json:"routes"`
	// Next is First of the following page; "" for none.
	Next string `json:"next"`
}

// Endpoints are a cluster's addresses, apart from it: they change far more often.
type Endpoints struct {
	Cluster   string           `json:"cluster"`
	Addresses []netip.AddrPort `json:"addresses"`
}

// Begins reports whether a page of a listener's routes begins with this name: one name in 64 does (FNV-1a).
func Begins(name string) bool {
	hash := uint32(2166136261)
	for i := range len(name) {
		hash = (hash ^ uint32(name[i])) * 16777619
	}
	return (hash^hash>>16)%64 == 0
}

// ListenerName is the resource name of a listener.
func ListenerName(listener string) string { return "listener/" + listener }

// PageName is the resource name of a page. "#" stands in no name of Kubernetes.
func PageName(listener, first string) string { return "page/" + listener + "#" + first }

// RouteName is the resource name of a route.
func RouteName(r *config.Route) string { return "route/" + r.Origin.String() }

// StreamRouteName is the resource name of one rule of a stream route's object.
func StreamRouteName(r *config.StreamRoute) string {
	return "stream/" + r.Origin.String() + "/" + r.Rule
}

// ClusterName is the resource name of a cluster without its endpoints.
func ClusterName(cluster string) string { return "cluster/" + cluster }

// EndpointsName is the resource name of a cluster's endpoints.
func EndpointsName(cluster string) string { return "endpoints/" + cluster }

// CertificateName is the resource name of a certificate.
func CertificateName(certificate string) string { return "certificate/" + certificate }

// The options are made once: they remember what they found out of each type. Nobody changes them.
var (
	writing = marshalling()
	reading = unmarshalling()
)

// marshalling is how payloads are written: zero fields are left out, whatever their tags say, times are UTC, durations nanoseconds, and
// secrets, which print as "[redacted]" everywhere else, base64. Bytes that are not UTF-8, as the text between two certificates of a
// Secret can have, become U+FFFD.
func marshalling() json.Options {
	return json.JoinOptions(
		json.OmitZeroStructFields(true), json.Deterministic(true), jsontext.AllowInvalidUTF8(true), jsontext.PreserveRawStrings(true),
		jsonv1.FormatDurationAsNano(true),
		json.WithMarshalers(json.JoinMarshalers(
			json.MarshalToFunc(func(out *jsontext.Encoder, s config.Secret) error {
				return out.WriteToken(jsontext.String(base64.StdEncoding.EncodeToString(s)))
			}),
			json.MarshalToFunc(func(out *jsontext.Encoder, t time.Time) error {
				return out.WriteToken(jsontext.String(t.UTC().Format(time.RFC3339Nano)))
			}),
		)),
	)
}

// unmarshalling is how payloads are read. A field that this program does not know is an error: whoever ignored it could leave out a
// restriction that the controller asks for.
func unmarshalling() json.Options {
	return json.JoinOptions(
		json.RejectUnknownMembers(true), jsonv1.FormatDurationAsNano(true),
		json.WithUnmarshalers(json.UnmarshalFromFunc(func(in *jsontext.Decoder, s *config.Secret) error {
			token, err := in.ReadToken()
			if err != nil {
				return err
			}
			if token.Kind() != '"' {
				return errors.New("a secret must be a base64 string")
			}
			if *s, err = base64.StdEncoding.DecodeString(token.String()); err != nil {
				return errors.New("a secret is not base64") // the decoder's own text would show where, and with which byte
			}
			return nil
		})),
	)
}

// Encode makes the resource of a listener (whose routes travel apart), page, route, stream route, cluster (whose endpoints travel
// apart), endpoints or certificate.
func Encode(name string, message any) (*discovery.Resource, error) {
	var kind string
	switch m := message.(type) {
	case *config.Listener:
		bare := *m
		bare.Routes, bare.Streams = nil, nil
		kind, message = TypeListener, &bare
	case *Page:
		kind = TypePage
	case *config.Route:
		kind = TypeRoute
	case *config.StreamRoute:
		kind = TypeStreamRoute
	case *config.Cluster:
		bare := *m
		bare.Endpoints = nil
		kind, message = TypeCluster, &bare
	case *Endpoints:
		kind = TypeEndpoints
	case *config.Certificate:
		kind = TypeCertificate
	default:
		return nil, fmt.Errorf("%s: no resource is made of a %T", name, message)
	}
	payload, err := json.Marshal(message, writing)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%s cannot be written as JSON: %w", name, err)
	case len(payload) > MaxResource:
		return nil, fmt.Errorf("%s has %d bytes, of which a proxy takes %d at most: make the object smaller", name, len(payload), MaxResource)
	case !utf8.ValidString(name):
		return nil, fmt.Errorf("the name %q is not UTF-8", name)
	}
	return &discovery.Resource{Name: name, Version: version(kind, payload), Resource: &anypb.Any{TypeUrl: kind, Value: payload}}, nil
}

// version is 128 bits of a hash: enough that nobody finds two contents with one version by chance.
func version(kind string, payload []byte) string {
	hash := sha256.New()
	hash.Write([]byte(kind))
	hash.Write([]byte{0})
	hash.Write(payload)
	return base64.RawURLEncoding.EncodeToString(hash.Sum(nil)[:16])
}

// Decode opens a resource. The result is a pointer to one of the types that Encode takes. An error names the resource.
func Decode(r *discovery.Resource) (any, error) {
	message, err := decode(r.GetName(), r.GetResource().GetTypeUrl(), r.GetResource().GetValue())
	if err != nil {
		return nil, fmt.Errorf("%s: %w", r.GetName(), err)
	}
	return message, nil
}

func decode(name, kind string, payload []byte) (any, error) {
	if len(payload) > MaxResource {
		return nil, fmt.Errorf("it has %d bytes, over the limit of %d", len(payload), MaxResource)
	}
	switch kind {
	case TypeListener:
		l, err := open(payload, config.Listener{})
		return named(l, err, name, func() string { return ListenerName(l.Name) })
	case TypePage:
		p, err := open(payload, Page{})
		return named(p, err, name, func() string { return PageName(p.Listener, p.First) })
	case TypeRoute:
		r, err := open(payload, config.Route{})
		if err == nil && slices.Contains(r.Rules, nil) {
			err = errors.New("a rule is null")
		}
		return r, err
	case TypeStreamRoute:
		return open(payload, config.StreamRoute{})
	case TypeCluster:
		c, err := open(payload, config.Cluster{})
		return named(c, err, name, func() string { return ClusterName(c.Name) })
	case TypeEndpoints:
		e, err := open(payload, Endpoints{})
		if err == nil && slices.ContainsFunc(e.Addresses, func(a netip.AddrPort) bool { return !a.IsValid() }) {
			err = errors.New("an address is empty")
		}
		return named(e, err, name, func() string { return EndpointsName(e.Cluster) })
	case TypeCertificate:
		c, err := open(payload, config.Certificate{})
		return named(c, err, name, func() string { return CertificateName(c.Name) })
	}
	return nil, fmt.Errorf("kind %q is not known here: the controller and this proxy are of different versions", kind)
}

func open[T any](payload []byte, into T) (*T, error) {
	if err := json.Unmarshal(payload, &into, reading); err != nil {
		return nil, err
	}
	return &into, nil
}

// named refuses a resource whose content is another one's.
func named[T any](message *T, err error, name string, inside func() string) (any, error) {
	switch {
	case err != nil:
		return nil, err
	case inside() != name:
		return nil, fmt.Errorf("it holds %s", inside())
	}
	return message, nil
}
