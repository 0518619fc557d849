package schema

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	certificatesv1beta1 "k8s.io/api/certificates/v1beta1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	kjson "sigs.k8s.io/json"
)

// coreKind is a kind of Kubernetes itself, decoded strictly into its Go type T.
type coreKind struct {
	group, kind, version string
	clusterScoped        bool
	validName            validation.ValidateNameFunc
	decode               func(raw []byte) (metav1.Object, []error, error)
	// complete fills in defaults and drops the status.
	complete func(metav1.Object)
	check    func(metav1.Object) field.ErrorList
}

// coreKinds is the table of the kinds of Kubernetes that a gateway reads.
func coreKinds() []*coreKind {
	return []*coreKind{
		{group: "", kind: "Service", version: "v1", validName: validation.NameIsDNS1035Label,
			decode: decode[corev1.Service], complete: typed(completeService), check: typedCheck(checkService)},
		{group: "discovery.k8s.io", kind: "EndpointSlice", version: "v1", validName: validation.NameIsDNSSubdomain,
			decode: decode[discoveryv1.EndpointSlice], complete: typed(completeEndpointSlice), check: typedCheck(checkEndpointSlice)},
		{group: "", kind: "Secret", version: "v1", validName: validation.NameIsDNSSubdomain,
			decode: decode[corev1.Secret], complete: typed(completeSecret), check: typedCheck(checkSecret)},
		{group: "", kind: "ConfigMap", version: "v1", validName: validation.NameIsDNSSubdomain,
			decode: decode[corev1.ConfigMap], complete: func(metav1.Object) {}, check: typedCheck(checkConfigMap)},
		{group: "certificates.k8s.io", kind: "ClusterTrustBundle", version: "v1beta1", clusterScoped: true, validName: pathSegment,
			decode: decode[certificatesv1beta1.ClusterTrustBundle], complete: func(metav1.Object) {}, check: typedCheck(checkTrustBundle)},
		{group: "", kind: "Namespace", version: "v1", clusterScoped: true, validName: validation.NameIsDNSLabel,
			decode:   decode[corev1.Namespace],
			complete: typed(func(n *corev1.Namespace) { n.Status, n.Spec = corev1.NamespaceStatus{}, corev1.NamespaceSpec{} }),
			check:    func(metav1.Object) field.ErrorList { return nil }},
	}
}

// pathSegment takes every name that can stand in a URL's path: those of ClusterTrustBundles hold their signer's, as "example.com:mine".
func pathSegment(name string, _ bool) []string {
	if name == "." || name == ".." || strings.ContainsAny(name, "/%") {
		return []string{"must not be '.' or '..' and must not contain '/' or '%'"}
	}
	return nil
}

// decode decodes strictly: fields that are unknown or stand twice are errors.
func decode[T any, P interface {
	*T
	metav1.Object
}](raw []byte) (metav1.Object, []error, error) {
	object := P(new(T))
	strict, err := kjson.UnmarshalStrict(raw, object)
	return object, strict, err
}

func typed[T metav1.Object](f func(T)) func(metav1.Object) {
	return func(o metav1.Object) { f(o.(T)) }
}

func typedCheck[T metav1.Object](f func(T) field.ErrorList) func(metav1.Object) field.ErrorList {
	return func(o metav1.Object) field.ErrorList { return f(o.(T)) }
}

func (k *coreKind) versions() []string { return []string{k.version} }
func (k *coreKind) namespaced() bool   { return !k.clusterScoped }
func (k *coreKind) served() bool       { return true }

func (k *coreKind) validate(_ context.Context, h Header, raw []byte) (metav1.Object, []Error) {
	object, strict, err := k.decode(raw)
	if err != nil {
		at, text := decodeError(h, raw, err)
		return nil, []Error{{Field: at, Message: fmt.Sprintf("%s in version %q cannot be handled as a %s: %s",
			k.kind, k.version, k.kind, oneLine(text))}}
	}
	var errs []Error
	for _, e := range strict {
		errs = append(errs, strictErrors([]string{e.Error()})...)
	}
	clean(object, k.namespaced())
	k.complete(object)
	list := generatedName(object)
	if len(list) == 0 {
		list = validation.ValidateObjectMetaAccessor(object, k.namespaced(), k.validName, field.NewPath("metadata"))
	}
	list = append(list, k.check(object)...)
	if errs = append(errs, fieldErrors(list)...); len(errs) > 0 {
		return nil, errs
	}
	return object, nil
}

// decodeError finds the field that does not decode. Its text never holds a value: the object may be a Secret.
func decodeError(h Header, raw []byte, err error) (at, text string) {
	if e, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		shown := *e
		if strings.HasPrefix(e.Value, "number ") {
			shown.Value = "number"
		}
		return e.Field, shown.Error()
	}
	var values struct{ Data, BinaryData map[string]json.RawMessage }
	if json.Unmarshal(raw, &values) != nil || (h.Kind != "Secret" && h.Kind != "ConfigMap") {
		return "", err.Error()
	}
	name, data := "data", values.Data
	if h.Kind == "ConfigMap" {
		name, data = "binaryData", values.BinaryData
	}
	for key, value := range data {
		if _, bad := base64.StdEncoding.DecodeString(stringOf(value)); bad != nil {
			at = max(at, field.NewPath(name).Key(key).String()) // any one, and always the same one
		}
	}
	return at, err.Error()
}
