package cli

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"

	"carob.dev/carob/internal/tree"
)

const treeExample = `  carob tree                                  every namespace
  carob tree deployment nginx-deployment      one object and all below it
  carob tree -n shop -l app=nginx             the trees that hold these Pods
  carob tree -o json                          for programs`

func treeCommand() *cobra.Command {
	c := &cobra.Command{Use: "tree [KIND [NAME]]", Short: "what owns what, down to the processes", Example: treeExample, Args: cobra.MaximumNArgs(2)}
	kubeconfig := c.Flags().String("kubeconfig", "", "kubeconfig to use (default: $KUBECONFIG, else this machine's carob)")
	namespace := c.Flags().StringP("namespace", "n", "", "only this namespace (default: all; with KIND, the kubeconfig's)")
	all := c.Flags().BoolP("all-namespaces", "A", false, "all namespaces, also with KIND")
	selector := c.Flags().StringP("selector", "l", "", "only Pods with these labels, as app=nginx")
	format := addOutputFlag(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		sel, err := labels.Parse(*selector)
		if err != nil {
			return UsageError{fmt.Errorf("-l: %w", err)}
		}
		rc, ns, err := restConfig(*kubeconfig)
		if err != nil {
			return err
		}
		clients, err := treeClients(rc)
		if err != nil {
			return err
		}
		f := tree.Filter{Namespace: *namespace, Selector: sel}
		if len(args) > 0 {
			kind, name, found := strings.Cut(args[0], "/")
			if !found && len(args) == 2 {
				name = args[1]
			}
			if f.Kind, err = resolveKind(clients.Discovery, kind); err != nil {
				return err
			}
			f.Name = name
			if f.Namespace == "" && !*all {
				f.Namespace = ns
			}
		}
		in, warnings, err := tree.Fetch(c.Context(), clients, f.Namespace)
		if err != nil {
			return err
		}
		t := tree.Build(in, f)
		t.Warnings = warnings
		if f.Name != "" && len(t.Roots) == 0 {
			return fmt.Errorf("%s %q not found in namespace %q", f.Kind, f.Name, f.Namespace)
		}
		return output(c.OutOrStdout(), *format, t, func(w io.Writer) error {
			for _, warning := range warnings {
				fmt.Fprintln(c.ErrOrStderr(), "carob: warning:", warning)
			}
			if len(t.Roots) == 0 {
				_, err := fmt.Fprintln(w, "Nothing owns a Pod here, and there are no Pods.")
				return err
			}
			return tree.Print(w, t, tree.PrintOptions{Color: colored(w), Now: time.Now(), Namespaced: f.Namespace == ""})
		})
	}
	return c
}

func treeClients(rc *rest.Config) (tree.Clients, error) {
	kube, err := kubernetes.NewForConfig(rc)
	if err != nil {
		return tree.Clients{}, err
	}
	dyn, err := dynamic.NewForConfig(rc)
	return tree.Clients{Kube: kube, Dynamic: dyn, Discovery: kube.Discovery()}, err
}

// resolveKind turns deploy, deployments, Deployment or deployments.apps into Deployment.
func resolveKind(d discovery.DiscoveryInterface, name string) (string, error) {
	groups, err := restmapper.GetAPIGroupResources(d)
	if err != nil {
		return "", fmt.Errorf("discover the kinds: %w", err)
	}
	base, group, _ := strings.Cut(strings.ToLower(name), ".")
	for _, g := range groups {
		if group != "" && g.Group.Name != group {
			continue
		}
		for _, resources := range g.VersionedResources {
			for _, r := range resources {
				names := append([]string{r.Name, r.SingularName, strings.ToLower(r.Kind)}, r.ShortNames...)
				for _, n := range names {
					if n == base && !strings.Contains(r.Name, "/") {
						return r.Kind, nil
					}
				}
			}
		}
	}
	return "", fmt.Errorf("the server doesn't have a resource type %q", name)
}
