package api

import (
	"fmt"
	"time"

	storagev1 "k8s.io/api/storage/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"carob.dev/carob/internal/api/rule"
)

func csiNodeKind() *Kind {
	return &Kind{
		GroupVersionKind: storagev1.SchemeGroupVersion.WithKind("CSINode"),
		Resource:         "csinodes", Singular: "csinode",
		New:     func() runtime.Object { return &storagev1.CSINode{} },
		NewList: func() runtime.Object { return &storagev1.CSINodeList{} },

		PrepareForCreate: onCreate(func(n *storagev1.CSINode) { n.Status = storagev1.CSINodeStatus{} }),
		PrepareForUpdate: onUpdate(func(n, old *storagev1.CSINode) { n.Status = old.Status }),
		Validate:         check(validateCSINode),
		ValidateUpdate: checkUpdate(func(n, old *storagev1.CSINode) field.ErrorList {
			errs := append(validateCSINode(n), rule.MetaUpdate(&n.ObjectMeta, &old.ObjectMeta)...)
			for _, was := range old.Spec.Drivers {
				for _, now := range n.Spec.Drivers {
					if now.Name == was.Name {
						now.Allocatable, was.Allocatable = nil, nil // may change with what is attached
						errs = append(errs, rule.Immutable(field.NewPath("spec", "drivers"), &now, &was)...)
					}
				}
			}
			return errs
		}),

		Columns: []metav1.TableColumnDefinition{
			nameColumn(), column("Drivers", "integer", "Drivers indicates the number of CSI drivers registered on the node"), ageColumn(),
		},
		Row: row(func(n *storagev1.CSINode, now time.Time) []any {
			return []any{n.Name, int64(len(n.Spec.Drivers)), age(n.CreationTimestamp, now)}
		}),
		// How well storage is reached is not kept, as in Kubernetes by default; what drivers write there is dropped.
		Status: &Subresource{
			PrepareForUpdate: onUpdate(func(n, old *storagev1.CSINode) {
				n.Spec, n.Status = old.Spec, old.Status
				metav1.ResetObjectMetaForStatus(&n.ObjectMeta, &old.ObjectMeta)
			}),
			ValidateUpdate: checkUpdate(func(n, old *storagev1.CSINode) field.ErrorList {
				return rule.MetaUpdate(&n.ObjectMeta, &old.ObjectMeta)
			}),
			ResetFields: []string{"metadata", "spec"},
		},
	}
}

const csiNodeIDMax = 256

func validateCSINode(n *storagev1.CSINode) field.ErrorList {
	errs := rule.Meta(&n.ObjectMeta, false, apivalidation.NameIsDNSSubdomain)
	seen := map[string]bool{}
	for i, d := range n.Spec.Drivers {
		at := field.NewPath("spec", "drivers").Index(i)
		errs = append(errs, rule.DriverName(at.Child("name"), d.Name)...)
		if d.NodeID == "" {
			errs = append(errs, field.Required(at.Child("nodeID"), ""))
		}
		if len(d.NodeID) > csiNodeIDMax {
			errs = append(errs, field.Invalid(at.Child("nodeID"), d.NodeID, fmt.Sprintf("must be %d characters or less", csiNodeIDMax)))
		}
		if a := d.Allocatable; a != nil && a.Count != nil {
			errs = append(errs, rule.NonNegative(at.Child("allocatable", "count"), int64(*a.Count))...)
		}
		if seen[d.Name] {
			errs = append(errs, field.Duplicate(at.Child("name"), d.Name))
		}
		seen[d.Name] = true
		keys := map[string]bool{}
		for _, key := range d.TopologyKeys {
			if key == "" {
				errs = append(errs, field.Required(at, ""))
			}
			if keys[key] {
				errs = append(errs, field.Duplicate(at, key))
			}
			keys[key] = true
			errs = append(errs, rule.QualifiedName(at, key)...)
		}
	}
	return errs
}
