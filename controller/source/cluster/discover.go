package cluster

import (
	"context"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
)

// discoverEvery is how often the API server is asked which kinds it serves. A CRD installed after the controller is in use that much later.
const discoverEvery = 10 * time.Second

// served asks the API server for the version to read each kind in: the first of the kind's versions that it serves. A kind that it does
// not serve is missing from the answer. Kinds of which nothing could be learned are in unknown.
func served(ctx context.Context, d discovery.ServerResourcesInterfaceWithContext) (versions map[string]string, unknown map[string]error) {
	versions, unknown = map[string]string{}, map[string]error{}
	lists := map[schema.GroupVersion]*metav1.APIResourceList{}
	failed := map[schema.GroupVersion]error{}
	for _, k := range kinds {
		for _, version := range k.versions {
			gv := schema.GroupVersion{Group: k.group, Version: version}
			if _, asked := lists[gv]; !asked {
				list, err := d.ServerResourcesForGroupVersionWithContext(ctx, gv.String())
				if err != nil && !apierrors.IsNotFound(err) {
					failed[gv] = err
				}
				lists[gv] = list
			}
			if failed[gv] != nil {
				unknown[k.name] = failed[gv]
				break
			}
			if serves(lists[gv], k.resource) {
				versions[k.name] = version
				break
			}
		}
	}
	return versions, unknown
}

func serves(list *metav1.APIResourceList, resource string) bool {
	if list == nil {
		return false
	}
	for _, r := range list.APIResources {
		if r.Name == resource {
			return true
		}
	}
	return false
}
