variable "region" {
  description = "The region of the build. The document in the images (ip-ranges.json) is stored whole and serves every region."
  type        = string
  default     = "us-east-1"
}

variable "subnet_id" {
  description = "A subnet with internet access, for the build; null for a subnet of the default VPC."
  type        = string
  default     = null
}

variable "packages" {
  description = "The directory of the packages, the output of `make packages`."
  type        = string
  default     = "../../target/packages"
}

variable "version" {
  description = "The version of the packages: the part of the file name between `trailblazer` and the architecture."
  type        = string
  default     = "0.1.0-1"
}

variable "kms_key_id" {
  description = "The KMS key for the images' snapshots; null for the account's default EBS key."
  type        = string
  default     = null
}

variable "instance_types" {
  description = "The instance type of the build, by architecture."
  type        = map(string)
  default = {
    amd64 = "t3.small"
    arm64 = "t4g.small"
  }
}

variable "tags" {
  description = "Additional tags for the images and snapshots."
  type        = map(string)
  default     = {}
}
