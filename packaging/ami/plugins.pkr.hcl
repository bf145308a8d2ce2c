# In a separate file: Packer before 1.7 had the plugin built in and doesn't know this block.
packer {
  required_version = ">= 1.10"

  required_plugins {
    amazon = {
      source  = "github.com/hashicorp/amazon"
      version = "~> 1.3"
    }
  }
}
