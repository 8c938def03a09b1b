"""Cloud provider for Azure: agent pools of an AKS cluster over ARM. The only package that imports the Azure SDK."""
