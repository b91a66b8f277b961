package device

import (
	resourcev1 "k8s.io/api/resource/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"carob.dev/carob/internal/api/pod"
	"carob.dev/carob/internal/api/rule"
)

// id names a device, or a share of one.
type id struct{ driver, pool, device, share string }

func allocated(s *resourcev1.ResourceClaimStatus) map[id]bool {
	out := map[id]bool{}
	if s.Allocation != nil {
		for _, r := range s.Allocation.Devices.Results {
			out[id{r.Driver, r.Pool, r.Device, string(ptr.Deref(r.ShareID, ""))}] = true
		}
	}
	return out
}

func statusID(d resourcev1.AllocatedDeviceStatus) id {
	return id{d.Driver, d.Pool, d.Device, ptr.Deref(d.ShareID, "")}
}

// PrepareStatus drops the states of devices that are no longer allocated, and what Kubernetes does not keep by default either.
func PrepareStatus(c, old *resourcev1.ResourceClaim) {
	had, have := allocated(&old.Status), allocated(&c.Status)
	var kept []resourcev1.AllocatedDeviceStatus
	for _, d := range c.Status.Devices {
		if k := statusID(d); !had[k] || have[k] {
			kept = append(kept, d)
		}
	}
	c.Status.Devices = kept
	if a := c.Status.Allocation; a != nil && old.Status.Allocation == nil {
		for i := range a.Devices.Results {
			a.Devices.Results[i].SkipNodeOperations = nil
		}
	}
}

// Status checks a changed status of a claim.
func Status(c, old *resourcev1.ResourceClaim) field.ErrorList {
	errs := rule.MetaUpdate(&c.ObjectMeta, &old.ObjectMeta)
	status, names := field.NewPath("status"), requestNames(&c.Spec.Devices)
	s, was := &c.Status, &old.Status
	errs = append(errs, set(status.Child("reservedFor"), s.ReservedFor, resourcev1.ResourceClaimReservedForMaxSize,
		func(r resourcev1.ResourceClaimConsumerReference) types.UID { return r.UID },
		func(at *field.Path, r resourcev1.ResourceClaimConsumerReference) field.ErrorList {
			errs := append(required(at.Child("resource"), r.Resource), required(at.Child("name"), r.Name)...)
			return append(errs, required(at.Child("uid"), string(r.UID))...)
		})...)
	devices := allocated(s)
	errs = append(errs, set(status.Child("devices"), s.Devices, unlimited, statusID,
		func(at *field.Path, d resourcev1.AllocatedDeviceStatus) field.ErrorList {
			return deviceStatus(at, d, devices)
		})...)
	if len(s.ReservedFor) > 0 {
		switch {
		case s.Allocation == nil:
			errs = append(errs, field.Forbidden(status.Child("reservedFor"), "may not be specified when `allocated` is not set"))
		case c.DeletionTimestamp != nil && added(s.ReservedFor, was.ReservedFor):
			errs = append(errs, field.Forbidden(status.Child("reservedFor"),
				"new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set"))
		}
	}
	switch at := status.Child("allocation"); {
	case s.Allocation != nil && was.Allocation != nil:
		errs = append(errs, rule.Immutable(at, s.Allocation, was.Allocation)...)
	case s.Allocation != nil:
		errs = append(errs, allocation(at, s.Allocation, names)...)
	}
	return errs
}

func added(now, was []resourcev1.ResourceClaimConsumerReference) bool {
	had := map[resourcev1.ResourceClaimConsumerReference]bool{}
	for _, r := range was {
		had[r] = true
	}
	for _, r := range now {
		if !had[r] {
			return true
		}
	}
	return false
}

func allocation(at *field.Path, a *resourcev1.AllocationResult, names []string) field.ErrorList {
	errs := each(at.Child("devices", "results"), a.Devices.Results, resourcev1.AllocationResultsMaxSize,
		func(at *field.Path, r resourcev1.DeviceRequestAllocationResult) field.ErrorList {
			errs := requestRef(at.Child("request"), r.Request, names)
			errs = append(errs, rule.DriverName(at.Child("driver"), r.Driver)...)
			errs = append(errs, poolName(at.Child("pool"), r.Pool)...)
			errs = append(errs, rule.DNSLabel(at.Child("device"), r.Device)...)
			errs = append(errs, bindingConditions(at, r.BindingConditions, r.BindingFailureConditions)...)
			errs = append(errs, each(at.Child("tolerations"), r.Tolerations, resourcev1.DeviceTolerationsMaxLength, toleration)...)
			if r.ShareID != nil {
				errs = append(errs, uuid(at.Child("shareID"), string(*r.ShareID))...)
			}
			return errs
		})
	errs = append(errs, each(at.Child("devices", "config"), a.Devices.Config, 2*resourcev1.DeviceConfigMaxSize,
		func(at *field.Path, c resourcev1.DeviceAllocationConfiguration) field.ErrorList {
			errs := rule.OneOf(at.Child("source"), c.Source, resourcev1.AllocationConfigSourceClaim, resourcev1.AllocationConfigSourceClass)
			errs = append(errs, requests(at.Child("requests"), c.Requests, names)...)
			return append(errs, configuration(at, &c.DeviceConfiguration, false)...)
		})...)
	if a.NodeSelector != nil {
		errs = append(errs, pod.NodeSelector(at.Child("nodeSelector"), a.NodeSelector)...)
	}
	return errs
}

func deviceStatus(at *field.Path, d resourcev1.AllocatedDeviceStatus, devices map[id]bool) field.ErrorList {
	errs := rule.DriverName(at.Child("driver"), d.Driver)
	errs = append(errs, poolName(at.Child("pool"), d.Pool)...)
	errs = append(errs, rule.DNSLabel(at.Child("device"), d.Device)...)
	if d.ShareID != nil {
		errs = append(errs, uuid(at.Child("shareID"), *d.ShareID)...)
	}
	if k := statusID(d); !devices[k] {
		errs = append(errs, field.Invalid(at, d.Driver+"/"+d.Pool+"/"+d.Device, "must be an allocated device in the claim"))
	}
	errs = append(errs, conditions(at.Child("conditions"), d.Conditions, resourcev1.AllocatedDeviceStatusMaxConditions)...)
	if d.Data != nil && len(d.Data.Raw) > 0 {
		errs = append(errs, object(at.Child("data"), *d.Data, false, resourcev1.AllocatedDeviceStatusDataMaxLength)...)
	}
	n := d.NetworkData
	if n == nil {
		return errs
	}
	net := at.Child("networkData")
	if len(n.InterfaceName) > resourcev1.NetworkDeviceDataInterfaceNameMaxLength {
		errs = append(errs, field.TooLong(net.Child("interfaceName"), "", resourcev1.NetworkDeviceDataInterfaceNameMaxLength))
	}
	if len(n.HardwareAddress) > resourcev1.NetworkDeviceDataHardwareAddressMaxLength {
		errs = append(errs, field.TooLong(net.Child("hardwareAddress"), "", resourcev1.NetworkDeviceDataHardwareAddressMaxLength))
	}
	return append(errs, set(net.Child("ips"), n.IPs, resourcev1.NetworkDeviceDataMaxIPs, itself,
		func(at *field.Path, ip string) field.ErrorList { return validation.IsValidInterfaceAddress(at, ip) })...)
}

// bindingConditions checks the conditions that a device waits for before it is bound: both lists or none, nothing in both.
func bindingConditions(at *field.Path, ready, failed []string) field.ErrorList {
	label := func(at *field.Path, name string) field.ErrorList { return metav1validation.ValidateLabelName(name, at) }
	one, other := at.Child("bindingConditions"), at.Child("bindingFailureConditions")
	errs := set(one, ready, resourcev1.BindingConditionsMaxSize, itself, label)
	errs = append(errs, set(other, failed, resourcev1.BindingFailureConditionsMaxSize, itself, label)...)
	both := map[string]bool{}
	for _, c := range ready {
		both[c] = true
	}
	for i, c := range failed {
		if both[c] {
			errs = append(errs, field.Invalid(other.Index(i), c, "bindingFailureConditions must not overlap with bindingConditions"))
		}
	}
	if len(ready) == 0 && len(failed) > 0 {
		errs = append(errs, field.Invalid(one, ready, "bindingConditions are required to use bindingFailureConditions"))
	}
	if len(failed) == 0 && len(ready) > 0 {
		errs = append(errs, field.Invalid(other, failed, "bindingFailureConditions are required to use bindingConditions"))
	}
	return errs
}

// AdminAllocated is where a status gives devices that others use; nil if it does not.
func AdminAllocated(s *resourcev1.ResourceClaimStatus) *field.Path {
	if s.Allocation == nil {
		return nil
	}
	for i, r := range s.Allocation.Devices.Results {
		if r.AdminAccess != nil && *r.AdminAccess {
			return field.NewPath("status", "allocation", "devices", "results").Index(i).Child("adminAccess")
		}
	}
	return nil
}
