// Package schema decides whether a Kubernetes API server would take an object, without one: it decodes strictly, prunes,
// defaults and validates as the server does for `kubectl apply --validate=strict`, with the server's own libraries and so with the
// server's own messages. In flows the JSON of one object, out flows a typed object or the list of what is wrong with it.
//
// Gateway API kinds are held against the CustomResourceDefinitions of the experimental channel, which are embedded, as is that of
// GatewayParameters; kinds of Kubernetes itself (Service, EndpointSlice, Secret, ConfigMap, ClusterTrustBundle, Namespace) against rules
// written here for the fields that a gateway reads. The package knows nothing of files, lines or what an object means for traffic.
package schema

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// MaxObjectBytes bounds the JSON of one object. It is what an API server takes in one request.
const MaxObjectBytes = 3 << 20

// DevelopmentCertificate is the annotation that asks for the tls.crt and tls.key of a Secret to be filled in from the development
// certificate authority. A Secret that has it may leave both keys out, which no cluster would allow.
const DevelopmentCertificate = "gatehouse.dev/development-certificate"

// Support says what is done with a kind.
type Support int

// What is done with a kind.
const (
	// Unknown is neither of Kubernetes nor of Gateway API.
	Unknown Support = iota
	// Ignored is a kind of Kubernetes that says nothing about traffic.
	Ignored
	// Unserved is validated where its schema is known, and goes no further.
	Unserved
	// Served is validated and decoded.
	Served
)

// Header is what names an object.
type Header struct {
	APIVersion, Kind, Namespace, Name string
}

// Group returns the API group, "" for that of the core kinds.
func (h Header) Group() string {
	group, _, ok := strings.Cut(h.APIVersion, "/")
	if !ok {
		return ""
	}
	return group
}

// Version returns the API version without its group.
func (h Header) Version() string {
	if _, version, ok := strings.Cut(h.APIVersion, "/"); ok {
		return version
	}
	return h.APIVersion
}

// Error is one thing that an API server would reject.
type Error struct {
	// Field is the path within the object, "" for the whole.
	Field string
	// Message is the API server's, without the field.
	Message string
}

// Error returns "field: message" as an API server prints it.
func (e Error) Error() string {
	if e.Field == "" {
		return e.Message
	}
	return e.Field + ": " + e.Message
}

// Validator validates objects. The schema of a kind is compiled when the first object of that kind arrives. It is safe for
// concurrent use.
type Validator struct {
	kinds map[groupKind]kind
}

type groupKind struct{ group, kind string }

// kind is one kind that can be validated.
type kind interface {
	versions() []string
	namespaced() bool
	served() bool
	// validate returns the decoded object, nil for a kind that is not served or an object that is wrong.
	validate(ctx context.Context, h Header, raw []byte) (metav1.Object, []Error)
}

// New returns a Validator.
func New() *Validator {
	v := &Validator{kinds: map[groupKind]kind{}}
	for _, c := range definitions() {
		v.kinds[groupKind{c.group, c.kind}] = c
	}
	for _, c := range coreKinds() {
		v.kinds[groupKind{c.group, c.kind}] = c
	}
	return v
}

// Lookup says what is done with the kind that h names. For Unknown and Unserved the reason says so in words, and what to do.
func (v *Validator) Lookup(h Header) (support Support, reason string) {
	k, ok := v.kinds[groupKind{h.Group(), h.Kind}]
	switch {
	case !ok && ignored(h.Group(), h.Kind):
		return Ignored, ""
	case !ok:
		return Unknown, fmt.Sprintf("no matches for kind %q in version %q%s", h.Kind, h.APIVersion, v.suggest(h))
	case !slices.Contains(k.versions(), h.Version()):
		return Unknown, fmt.Sprintf("no matches for kind %q in version %q; the versions of this kind are %s",
			h.Kind, h.APIVersion, strings.Join(k.versions(), ", "))
	case !k.served():
		return Unserved, fmt.Sprintf("kind %s of %s is not served by this version of gatehouse; remove the object, or keep it where"+
			" the gateway does not read it", h.Kind, h.Group())
	}
	return Served, ""
}

// suggest names the kind that was probably meant.
func (v *Validator) suggest(h Header) string {
	if other, ok := insteadOf(h.Group(), h.Kind); ok {
		return "; the gateway does not read it, use " + other
	}
	var close []string
	for gk, k := range v.kinds {
		if strings.EqualFold(gk.kind, h.Kind) {
			version := k.versions()[0]
			if gk.group != "" {
				version = gk.group + "/" + version
			}
			close = append(close, fmt.Sprintf("kind %s of %s", gk.kind, version))
		}
	}
	if len(close) == 0 {
		return "; the gateway does not read this kind, keep it out of the folder"
	}
	slices.Sort(close)
	return "; did you mean " + strings.Join(close, " or ") + "?"
}

// Known reports whether the kind is known in some version.
func (v *Validator) Known(h Header) bool {
	_, ok := v.kinds[groupKind{h.Group(), h.Kind}]
	return ok
}

// Namespaced reports whether objects of the kind have a namespace. It is true for kinds that are not known.
func (v *Validator) Namespaced(h Header) bool {
	k, ok := v.kinds[groupKind{h.Group(), h.Kind}]
	return !ok || k.namespaced()
}

// Validate validates the JSON of one object of a Served or Unserved kind. It returns the object with defaults filled in, as a pointer
// to its Go type of the version that Gatehouse works with, or what is wrong with it. An object of an Unserved kind is never returned.
//
// As on creation in a cluster, what the server alone writes (status, uid, generation, managed fields) is dropped, and a missing
// namespace is "default".
func (v *Validator) Validate(ctx context.Context, h Header, raw []byte) (metav1.Object, []Error) {
	k, ok := v.kinds[groupKind{h.Group(), h.Kind}]
	if !ok {
		return nil, []Error{{Field: "kind", Message: fmt.Sprintf("no matches for kind %q in version %q", h.Kind, h.APIVersion)}}
	}
	if len(raw) > MaxObjectBytes {
		return nil, []Error{{Message: fmt.Sprintf("object is too large: %d bytes of JSON, the limit is %d", len(raw), MaxObjectBytes)}}
	}
	return k.validate(ctx, h, raw)
}

// ParseHeader reads what names the object. Fields of the wrong type count as missing.
func ParseHeader(raw []byte) Header {
	var top struct {
		APIVersion, Kind json.RawMessage
		Metadata         json.RawMessage
	}
	if json.Unmarshal(raw, &top) != nil {
		return Header{}
	}
	var meta struct{ Namespace, Name json.RawMessage }
	_ = json.Unmarshal(top.Metadata, &meta) // a malformed metadata names nothing, and fails validation later
	return Header{stringOf(top.APIVersion), stringOf(top.Kind), stringOf(meta.Namespace), stringOf(meta.Name)}
}

func stringOf(raw json.RawMessage) string {
	var s string
	if json.Unmarshal(raw, &s) != nil {
		return ""
	}
	return s
}

// clean drops what an API server sets itself and what no one but the server needs, and fills in the namespace.
func clean(meta metav1.Object, namespaced bool) {
	meta.SetUID("")
	meta.SetGeneration(0)
	meta.SetResourceVersion("")
	meta.SetSelfLink("")
	meta.SetManagedFields(nil)
	if namespaced && meta.GetNamespace() == "" {
		meta.SetNamespace(metav1.NamespaceDefault)
	}
}

// generatedName is the error for an object that leaves its name to the server.
func generatedName(meta metav1.Object) field.ErrorList {
	if meta.GetName() != "" || meta.GetGenerateName() == "" {
		return nil
	}
	return field.ErrorList{field.Required(field.NewPath("metadata", "name"),
		"generateName is only for clusters; give the object a name")}
}

// fieldErrors turns the errors of the server's libraries into ours.
func fieldErrors(list field.ErrorList) []Error {
	var out []Error
	for _, e := range list {
		f := e.Field
		if f == "<nil>" {
			f = ""
		}
		out = append(out, Error{Field: f, Message: oneLine(e.ErrorBody())})
	}
	return out
}

// strictErrors turns strict decoding errors such as `unknown field "spec.foo"` into ours.
func strictErrors(texts []string) []Error {
	var out []Error
	for _, text := range texts {
		f := ""
		if _, rest, ok := strings.Cut(text, ` field "`); ok {
			f = strings.TrimSuffix(rest, `"`)
		}
		out = append(out, Error{Field: f, Message: "strict decoding error: " + text})
	}
	return out
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }
