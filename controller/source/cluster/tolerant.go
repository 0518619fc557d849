package cluster

import (
	"encoding/json"
	"log/slog"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// tolerant reads custom resources one by one where their list cannot be read as a whole. A CRD's schema cannot say everything that a Go type
// demands: the pattern of a quantity lets "1e1.5" through, which no quantity is. Whoever may create one such object in a namespace of their own
// would otherwise keep a whole kind from being read, and with it a controller from starting.
//
// What cannot be read becomes its metadata alone, which tables take for no object of their kind: its last readable version stays in use,
// and where there is none, it counts as missing.
type tolerant struct {
	runtime.NegotiatedSerializer
	kind   schema.GroupVersionKind
	logger *slog.Logger
}

// DecoderToVersion returns the decoder of answers and of the objects in watch events.
func (t tolerant) DecoderToVersion(d runtime.Decoder, gv runtime.GroupVersioner) runtime.Decoder {
	return tolerantDecoder{t.NegotiatedSerializer.DecoderToVersion(d, gv), t}
}

type tolerantDecoder struct {
	runtime.Decoder
	tolerant
}

// Decode decodes what it can. It returns the error when that is nothing.
func (d tolerantDecoder) Decode(data []byte, defaults *schema.GroupVersionKind, into runtime.Object) (runtime.Object, *schema.GroupVersionKind, error) {
	object, gvk, err := d.Decoder.Decode(data, defaults, into)
	if err == nil || into != nil {
		return object, gvk, err
	}
	var list struct {
		metav1.TypeMeta `json:",inline"`
		metav1.ListMeta `json:"metadata"`
		Items           []json.RawMessage `json:"items"`
	}
	if json.Unmarshal(data, &list) != nil { // protobuf too
		return object, gvk, err
	}
	switch list.Kind {
	case d.kind.Kind:
		if bare := d.bare(data, err); bare != nil {
			return bare, &d.kind, nil
		}
	case d.kind.Kind + "List":
		if out := d.each(list.Items); out != nil {
			out.TypeMeta, out.ListMeta = list.TypeMeta, list.ListMeta
			return out, gvk, nil
		}
	}
	return object, gvk, err
}

// each decodes the items of a list; nil when one of them has no metadata either.
func (d tolerantDecoder) each(items []json.RawMessage) *metav1.List {
	out := &metav1.List{Items: make([]runtime.RawExtension, len(items))}
	for i, item := range items {
		object, _, err := d.Decoder.Decode(item, &d.kind, nil)
		if err != nil {
			bare := d.bare(item, err)
			if bare == nil {
				return nil
			}
			object = bare
		}
		out.Items[i].Object = object
	}
	return out
}

// bare returns an object's metadata; nil when that cannot be read either.
func (d tolerantDecoder) bare(data []byte, why error) *metav1.PartialObjectMetadata {
	bare := &metav1.PartialObjectMetadata{}
	if json.Unmarshal(data, bare) != nil || bare.Name == "" {
		return nil
	}
	d.logger.Warn("an object cannot be read; its last readable version stays in use, without one it counts as missing", "kind", d.kind.Kind,
		"object", bare.Namespace+"/"+bare.Name, "error", why)
	return bare
}
