package cli

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	kubectl "k8s.io/kubectl/pkg/cmd"

	"carob.dev/carob/internal/cli/admin"
	"carob.dev/carob/internal/config"
)

const kubectlName = "kubectl"

// kubectlCommand is the stock kubectl, linked in. Without --kubeconfig and $KUBECONFIG it talks to the cluster of the default root, or
// of $CAROB_ROOT. It is made only when it is called: making it reads files and takes time.
func kubectlCommand() *cobra.Command {
	if len(os.Args) < 2 || os.Args[1] != kubectlName {
		return &cobra.Command{Use: kubectlName, Short: "the stock kubectl, for this cluster", Run: func(*cobra.Command, []string) {}}
	}
	flags := genericclioptions.NewConfigFlags(true).WithDeprecatedPasswordFlag().WithDiscoveryBurst(300).WithDiscoveryQPS(50)
	c := kubectl.NewDefaultKubectlCommandWithArgs(kubectl.KubectlOptions{
		PluginHandler: kubectl.NewDefaultPluginHandler([]string{kubectlName}),
		Arguments:     append([]string{kubectlName}, os.Args[2:]...),
		ConfigFlags:   flags,
		IOStreams:     genericiooptions.IOStreams{In: os.Stdin, Out: os.Stdout, ErrOut: os.Stderr},
	})
	c.Use, c.Short = kubectlName, "the stock kubectl, for this cluster"
	inner := c.PersistentPreRunE
	c.PersistentPreRunE = func(cmd *cobra.Command, args []string) error {
		if flags.KubeConfig != nil && *flags.KubeConfig == "" && os.Getenv("KUBECONFIG") == "" {
			if path := ownKubeconfig(); path != "" {
				*flags.KubeConfig = path
			}
		}
		if inner != nil {
			return inner(cmd, args)
		}
		return nil
	}
	return c
}

// ownKubeconfig is the admin kubeconfig of the Carob that runs, else the default one if it exists.
func ownKubeconfig() string {
	root := config.DefaultRoot
	if r := os.Getenv("CAROB_ROOT"); r != "" {
		root = r
	}
	cfg := config.Default(root)
	for _, path := range []string{cfg.Path("admin.kubeconfig"), cfg.Kubeconfig} {
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	return ""
}

func kubeconfigCommand() *cobra.Command {
	c := &cobra.Command{Use: "kubeconfig", Short: "print the admin's kubeconfig", Args: cobra.NoArgs}
	src := config.AddRootFlag(c.Flags())
	c.RunE = func(c *cobra.Command, _ []string) error {
		cfg, err := src.Load()
		if err != nil {
			return UsageError{err}
		}
		raw, err := os.ReadFile(cfg.Path("admin.kubeconfig"))
		if os.IsNotExist(err) {
			return admin.NotRunning(cfg.Root)
		}
		if err != nil {
			return err
		}
		_, err = c.OutOrStdout().Write(raw)
		return err
	}
	return c
}

// restConfig reads the kubeconfig that the flag names, else $KUBECONFIG, else the own one, else kubectl's default.
func restConfig(path string) (*rest.Config, string, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	if path == "" && os.Getenv("KUBECONFIG") == "" {
		path = ownKubeconfig()
	}
	rules.ExplicitPath = path
	loader := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, nil)
	rc, err := loader.ClientConfig()
	if err != nil {
		return nil, "", fmt.Errorf("read the kubeconfig: %w", err)
	}
	rc.QPS, rc.Burst, rc.WarningHandler = 200, 400, rest.NoWarnings{}
	ns, _, err := loader.Namespace()
	return rc, ns, err
}
