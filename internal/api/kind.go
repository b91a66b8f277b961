// Package api is the kinds that Carob serves, as data: one file per kind with its names, defaults, validation, printed
// columns and subresources. The API server turns each Kind into a registry; a new kind is one new file here.
//
// It imports its own subpackages: rule (rules that kinds share), pod (what holds for Pods and their templates), openapi (generated).
// Everything in it is a pure function of the objects it is given, but for the ages in table rows and the times of certificates.
package api

import (
	"context"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Kind describes one kind of object. Functions that are nil mean "nothing to do".
type Kind struct {
	// GroupVersionKind and Resource are the names in the API, e.g. apps/v1 Deployment, deployments.
	schema.GroupVersionKind
	Resource   string
	Singular   string
	ShortNames []string
	Categories []string
	Namespaced bool

	New     func() runtime.Object
	NewList func() runtime.Object

	// Default fills in what the client left out, as Kubernetes' defaulters do. It also runs on objects read from the store.
	Default func(obj runtime.Object)
	// PrepareForCreate and PrepareForUpdate drop what a client may not set (status on the main resource) and keep
	// metadata.generation. They run before validation.
	PrepareForCreate func(ctx context.Context, obj runtime.Object)
	PrepareForUpdate func(ctx context.Context, obj, old runtime.Object)
	// Validate checks a new object whole; ValidateUpdate checks the new one against the old (and calls Validate's checks).
	Validate       func(ctx context.Context, obj runtime.Object) field.ErrorList
	ValidateUpdate func(ctx context.Context, obj, old runtime.Object) field.ErrorList
	// Warnings are sent to the client as HTTP warnings; old is nil on create.
	Warnings func(ctx context.Context, obj, old runtime.Object) []string

	// AllowCreateOnUpdate lets PUT create (leases, events, endpoints…); AllowUnconditionalUpdate lets PUT leave out the resourceVersion.
	AllowCreateOnUpdate      bool
	AllowUnconditionalUpdate bool

	// Columns and Row are the server-side table, Kubernetes' own columns and cells. Wide columns have Priority 1.
	Columns []metav1.TableColumnDefinition
	Row     func(obj runtime.Object) ([]any, error)

	// Mark may change the rows of a list once all are made: what an object is among others, such as the default of its kind. Nil for none.
	Mark func(objs []runtime.Object, rows [][]any)

	// Fields are the selectable fields beyond metadata.name and metadata.namespace; its keys must be the same for each object.
	Fields func(obj runtime.Object) fields.Set
	// FieldLabels are the names that a fieldSelector may use, each with the key of Fields that it means. Nil: the keys of Fields themselves.
	FieldLabels map[string]string
	// Completed are the conditions of the object's table row: one, for an object whose work is over.
	Completed func(obj runtime.Object) []metav1.TableRowCondition

	// StoredAs is the resource whose storage this kind shares; empty for a storage of its own. Events of both groups are one storage.
	// New and NewList then make the stored type, which the scheme converts to the served one.
	StoredAs schema.GroupResource

	// Status is the /status subresource; nil if the kind has none.
	Status *Subresource
	// Finalize is the /finalize subresource of namespaces; EphemeralContainers and Resize are /ephemeralcontainers and /resize of Pods.
	Finalize            *Subresource
	EphemeralContainers *Subresource
	Resize              *Subresource
	// Approval is the /approval subresource of certificate signing requests.
	Approval *Subresource
	// Scale is the /scale subresource; nil if the kind has none.
	Scale *Scale

	// ReturnDeleted has a delete answer with the object as it last was, in place of a Status.
	ReturnDeleted bool
	// OrphanByDefault says that a delete without propagationPolicy orphans dependents, as it always did for ReplicationControllers.
	OrphanByDefault bool
	// Graceful decides on a delete of a kind with graceful deletion (Pods). It may change options.GracePeriodSeconds; it returns
	// whether deletion is graceful: see rest.RESTGracefulDeleteStrategy.
	Graceful func(ctx context.Context, obj runtime.Object, options *metav1.DeleteOptions) bool
	// TTLSeconds is how long an object lives in the store (events); nil for ever.
	TTLSeconds func(obj runtime.Object, existing uint64, update bool) (uint64, error)

	// NoVerbs lists verbs that are not served although the generic registry could (rare).
	NoVerbs []string
}

// Subresource is how a subresource that shares its parent's object (/status, /ephemeralcontainers, /resize) is updated.
type Subresource struct {
	// PrepareForUpdate keeps everything but the subresource's part from old.
	PrepareForUpdate func(ctx context.Context, obj, old runtime.Object)
	ValidateUpdate   func(ctx context.Context, obj, old runtime.Object) field.ErrorList
	// ResetFields are the fields that this endpoint does not own, for server-side apply ("spec" for /status). Nil for none.
	ResetFields []string
	// OwnFields, in its place, are the only fields that it does own; * stands for any entry of a list.
	OwnFields []string
}

// Scale tells how /scale reads and writes the kind.
type Scale struct {
	// Get returns spec.replicas, status.replicas and the selector in its string form.
	Get func(obj runtime.Object) (spec, status int32, selector string, err error)
	// Set writes spec.replicas.
	Set func(obj runtime.Object, replicas int32)
}
