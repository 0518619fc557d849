package v1alpha1

import "reflect"

// Merge returns what the class's parameters and the Gateway's say together. The Gateway's outdo the class's field by field, at every
// depth: what the Gateway leaves out is the class's.
//
//	class    replicas: 3   service: {type: NodePort, annotations: {a: "1", b: "2"}}   scheduling: {tolerations: [x]}
//	Gateway                service: {annotations: {b: "3"}}                           scheduling: {tolerations: [y]}
//	result   replicas: 3   service: {type: NodePort, annotations: {a: "1", b: "3"}}   scheduling: {tolerations: [y]}
//
// Objects and maps are merged by field and key; a list is replaced as a whole, by an empty list too. The result shares no memory with
// the arguments.
func Merge(class, gateway GatewayParametersSpec) GatewayParametersSpec {
	out, over := class.DeepCopy(), gateway.DeepCopy()
	outdo(reflect.ValueOf(out).Elem(), reflect.ValueOf(over).Elem())
	return *out
}

// outdo writes what is set in over into the addressable value base of the same type.
func outdo(base, over reflect.Value) {
	switch {
	case over.IsZero():
		// Not said. A list that is empty but there is not zero.
	case over.Kind() == reflect.Struct:
		for i := range over.NumField() {
			outdo(base.Field(i), over.Field(i))
		}
	case over.Kind() == reflect.Pointer && over.Elem().Kind() == reflect.Struct && !base.IsNil():
		outdo(base.Elem(), over.Elem())
	case over.Kind() == reflect.Map && !base.IsNil():
		for entries := over.MapRange(); entries.Next(); {
			base.SetMapIndex(entries.Key(), entries.Value())
		}
	default:
		base.Set(over)
	}
}
